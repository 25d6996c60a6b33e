"""What can be done with a trained network's logits, without training it again.

A prior correction subtracts τ times the logarithm of each class's share among the training images
(Menon 2021, section 4.1): so it is a threshold for every class that depends on its share alone.
Temperature scaling divides by T (Guo 2017), which moves probabilities and no answer. Where mistakes
do not all cost the same, the answer may be that of least expected cost by the network's
probabilities (Elkan 2001). Free thresholds add a number for every class of the data set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.data.episodes import Tasks
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation, all_waves, waves_of
from metaloss.evaluation.rivals.fitting import AFTER, RivalMeasures, answers_alone
from metaloss.evaluation.tuning import Setting
from metaloss.inner.metrics import classes_of, logits, scores_of
from metaloss.inner.observers import Measures
from metaloss.inner.thresholds import search_thresholds
from metaloss.losses.base import Losses
from metaloss.losses.prior import class_terminals

TAU = "τ"  # the constant of a prior correction
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
TEMPERATURES = tuple(2 ** (i / 2) for i in range(-8, 9))


@dataclass(frozen=True, eq=False)
class ChangeChoice:
    """A change of trained networks' logits that meta-validation tasks chose.

    Attributes:
        name: as tables show it.
        constant: the name of what was chosen.
        value: what was chosen.
        score: the mean on those tasks, a failure counting as 0.
        change: of the networks' logits.
        offsets: of every class of the data set, where those were chosen.
        probabilities: whether what comes of it orders classes by probabilities.
    """

    name: str
    constant: str
    value: float
    score: float
    change: Callable[["_Networks"], "_Networks"]
    offsets: tuple[float, ...] = ()
    probabilities: bool = True

    @property
    def kind(self) -> str:
        """That it changes what a network gives."""
        return AFTER

    def measured(self, networks: "_Networks") -> RivalMeasures:
        """What it makes of networks on other tasks."""
        measures = self.change(networks).measures()
        if not self.probabilities:
            measures = answers_alone(measures)
        return RivalMeasures(self.name, self.kind, self.constant, self.value, measures)


def adjust_logits(
    evaluation: EpisodeEvaluation,
    name: str,
    losses: Losses,
    setting: Setting,
    tuning_tasks: int,
    test_tasks: int,
) -> list[RivalMeasures]:
    """A loss's networks on the meta-test tasks, with logits changed after training.

    Args:
        evaluation: gives the tasks, and trains.
        name: of the loss.
        losses: the loss, a single one.
        setting: its best rate and number of steps.
        tuning_tasks: meta-validation tasks that choose τ, T and thresholds.
        test_tasks: how many test them.
    """
    chosen = choose_changes(evaluation, name, losses, setting, tuning_tasks)
    return measure_changes(evaluation, chosen, losses, setting, test_tasks)


def choose_changes(
    evaluation: EpisodeEvaluation, name: str, losses: Losses, setting: Setting, tasks: int
) -> list[ChangeChoice]:
    """The changes of a loss's logits that are best on meta-validation tasks.

    A prior correction is left out where all classes have equally many images, the answer of least
    expected cost where all mistakes cost alike, and free thresholds where tasks differ in classes.

    Args:
        evaluation: gives the tasks, and trains.
        name: of the loss.
        losses: the loss, a single one.
        setting: its best rate and number of steps.
        tasks: how many choose τ, T and thresholds.
    """
    networks = _Networks.trained(evaluation, losses, setting, "validation", tasks)
    return [
        *_prior_correction(name, networks),
        _temperature(name, networks),
        *_least_cost(name, networks),
        *_thresholds(name, networks),
    ]


def measure_changes(
    evaluation: EpisodeEvaluation,
    chosen: Sequence[ChangeChoice],
    losses: Losses,
    setting: Setting,
    tasks: int,
) -> list[RivalMeasures]:
    """What chosen changes make of a loss's networks on meta-test tasks.

    Args:
        evaluation: gives the tasks, and trains.
        chosen: the changes.
        losses: the loss that they were chosen for, a single one.
        setting: its rate and number of steps.
        tasks: how many.
    """
    networks = _Networks.trained(evaluation, losses, setting, "test", tasks)
    return [x.measured(networks) for x in chosen]


def _prior_correction(name: str, networks: "_Networks") -> list[ChangeChoice]:
    """The prior correction with the best τ."""
    if not any(bool(log_prior.any()) for log_prior in networks.log_prior):
        return []
    tau, score = _best(STRENGTHS, lambda x: networks.corrected(x).score())
    return [ChangeChoice(f"{name}, prior correction", TAU, tau, score, lambda x: x.corrected(tau))]


def _temperature(name: str, networks: "_Networks") -> ChangeChoice:
    """The temperature at which the true classes are most probable."""
    temperature, _ = _best(TEMPERATURES, lambda x: -networks.scaled(x).nll())
    score = float(networks.scaled(temperature).score())
    return ChangeChoice(
        f"{name}, temperature", "T", temperature, score, lambda x: x.scaled(temperature)
    )


def _least_cost(name: str, networks: "_Networks") -> list[ChangeChoice]:
    """The answers of least expected cost, at the temperature that scores best."""
    if networks.tasks[0].costs is None:
        return []
    temperature, score = _best(TEMPERATURES, lambda x: networks.by_expected_cost(x).score())
    # What they order the classes by is no probability.
    return [
        ChangeChoice(
            f"{name}, least expected cost",
            "T",
            temperature,
            score,
            lambda x: x.by_expected_cost(temperature),
            probabilities=False,
        )
    ]


def _thresholds(name: str, networks: "_Networks") -> list[ChangeChoice]:
    """Thresholds for every class, by coordinate search."""
    classes = len(networks.evaluation.family.dataset.classes)
    if networks.evaluation.family.ways != classes or networks.tasks[0].classes is None:
        return []
    offsets = search_thresholds(lambda tried: networks.offset(tried).score(), classes)
    return [
        ChangeChoice(
            f"{name}, thresholds",
            "largest offset",
            float(offsets.abs().max()),
            float(networks.offset(offsets).score()),
            lambda x: x.offset(offsets),
            tuple(offsets.tolist()),
        )
    ]


def _best(
    values: Sequence[float], score: Callable[[float], Float[Tensor, ""]]
) -> tuple[float, float]:
    """The value with the highest score, the first of equal ones, and that score."""
    scores = torch.stack([score(x) for x in values]).nan_to_num(nan=-torch.inf)
    best = int(scores.argmax())
    return values[best], float(scores[best])


@dataclass(frozen=True, eq=False)
class _Networks:
    """What networks that were trained on tasks give, wave by wave.

    Attributes:
        evaluation: measures them.
        tasks: of each wave.
        logits: of every validation image.
        log_prior: log(C · share) of each class among the training images.
    """

    evaluation: EpisodeEvaluation
    tasks: list[Tasks]
    logits: list[Float[Tensor, "T V C"]]
    log_prior: list[Float[Tensor, "T C"]]

    @classmethod
    def trained(
        cls, evaluation: EpisodeEvaluation, losses: Losses, setting: Setting, pool: str, count: int
    ) -> "_Networks":
        """Networks that were trained on tasks of a pool.

        Args:
            evaluation: gives the tasks, and trains.
            losses: a single loss.
            setting: its rate and number of steps.
            pool: where the tasks are drawn from.
            count: how many.
        """
        networks = cls(evaluation, [], [], [])
        key = evaluation.key.at(pool)
        for numbers in waves_of(count):
            (seen,) = evaluation.family.evaluate(
                evaluation.engine,
                [losses],
                pool,
                key,
                numbers,
                rates=[setting.lr],
                steps=(setting.steps,),
                metric=logits,
            )
            tasks = evaluation.family.sample([key.at("task", t) for t in numbers], pool)
            networks.tasks.append(tasks)
            networks.logits.append(seen[0, 0].cpu())
            shares = class_terminals(tasks.train.class_counts)
            networks.log_prior.append(shares["logprior"].cpu())
        return networks

    def corrected(self, tau: float) -> "_Networks":
        """The same with a prior correction."""
        pairs = zip(self.logits, self.log_prior, strict=True)
        return replace(self, logits=[z - tau * log_prior[:, None] for z, log_prior in pairs])

    def scaled(self, temperature: float) -> "_Networks":
        """The same at a temperature."""
        return replace(self, logits=[z / temperature for z in self.logits])

    def by_expected_cost(self, temperature: float) -> "_Networks":
        """The negative expected cost of each class as the answer, in place of its logit."""
        expected = []
        for z, tasks in zip(self.logits, self.tasks, strict=True):
            assert tasks.costs is not None
            expected.append(-((z / temperature).softmax(-1) @ tasks.costs.to(z)))
        return replace(self, logits=expected)

    def offset(self, offsets: Float[Tensor, " K"]) -> "_Networks":
        """The same with a number added for each class of the data set."""
        moved = []
        for z, tasks in zip(self.logits, self.tasks, strict=True):
            assert tasks.classes is not None
            moved.append(z + offsets[tasks.classes.cpu()][:, None].to(z))
        return replace(self, logits=moved)

    def score(self) -> Tensor:
        """The family's mean score, a training that diverged counting as 0."""
        family = self.evaluation.family
        scores = []
        for z, tasks in zip(self.logits, self.tasks, strict=True):
            label = tasks.val.label.cpu()
            if family.metric is None:
                right = (z.argmax(-1) == label).to(z).mean(-1)
                scores.append(right.where(z.isfinite().all(-1).all(-1), 0))
                continue
            classes = classes_of(tasks, family.metric).cpu()
            values = family.metric.measure(z[None], label, classes)[0]
            scores.append(scores_of(family.scale, values).nan_to_num())
        return torch.cat(scores).mean()

    def nll(self) -> Tensor:
        """The mean of -log p of the true class, over the trainings that did not diverge."""
        return self.measures().nll.nanmean()

    def measures(self) -> Measures:
        """What they are worth; NaN where a training diverged."""
        pairs = zip(self.logits, self.tasks, strict=True)
        return all_waves([self.evaluation.measures_by(z, tasks) for z, tasks in pairs])
