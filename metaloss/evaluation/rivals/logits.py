"""What can be done with a trained network's logits, without training it again.

A prior correction subtracts τ times the logarithm of each class's share among the training images
(Menon 2021, section 4.1): so it is a threshold for every class that depends on its share alone.
Temperature scaling divides by T (Guo 2017), which moves probabilities and no answer.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.data.episodes import Tasks
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation, all_waves, waves_of
from metaloss.evaluation.rivals.fitting import AFTER, RivalMeasures
from metaloss.evaluation.tuning import Setting
from metaloss.inner.metrics import logits
from metaloss.inner.observers import Measures
from metaloss.losses.base import Losses
from metaloss.losses.prior import class_terminals

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)  # τ
TEMPERATURES = tuple(2 ** (i / 2) for i in range(-8, 9))


def adjust_logits(
    evaluation: EpisodeEvaluation,
    name: str,
    losses: Losses,
    setting: Setting,
    tuning_tasks: int,
    test_tasks: int,
) -> list[RivalMeasures]:
    """A loss's networks on the meta-test tasks, with logits changed after training.

    A prior correction is left out where all classes have equally many images.

    Args:
        evaluation: gives the tasks, and trains.
        name: of the loss.
        losses: the loss, a single one.
        setting: its best rate and number of steps.
        tuning_tasks: meta-validation tasks that choose τ and T.
        test_tasks: how many test them.
    """
    tuning = _Networks.trained(evaluation, losses, setting, "validation", tuning_tasks)
    test = _Networks.trained(evaluation, losses, setting, "test", test_tasks)
    rivals = []
    if any(bool(log_prior.any()) for log_prior in tuning.log_prior):
        scores = [tuning.corrected(tau).measures().score.nan_to_num().mean() for tau in STRENGTHS]
        tau = STRENGTHS[int(torch.stack(scores).argmax())]
        measures = test.corrected(tau).measures()
        rivals.append(RivalMeasures(f"{name}, prior correction", AFTER, "τ", tau, measures))
    nll = [tuning.scaled(x).measures().nll.nanmean() for x in TEMPERATURES]
    temperature = TEMPERATURES[int(torch.stack(nll).nan_to_num(nan=torch.inf).argmin())]
    measures = test.scaled(temperature).measures()
    rivals.append(RivalMeasures(f"{name}, temperature", AFTER, "T", temperature, measures))
    return rivals


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

    def measures(self) -> Measures:
        """What they are worth; NaN where a training diverged."""
        pairs = zip(self.logits, self.tasks, strict=True)
        return all_waves([self.evaluation.measures_by(z, tasks) for z, tasks in pairs])
