"""The gain of choosing a loss, over all folds, with its interval, and the sentences about it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metaloss.core.formatting import near_chance, percent
from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.streams import Stream
from metaloss.data.episodes import TaskImages, Tasks
from metaloss.evaluation.metric_resamples import MetricResamples
from metaloss.evaluation.statistics import Draws, Resamples
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.comparison.sentences import name_in_sentence
from metaloss.experiments.recommendation.selection import ChoiceEvaluation, LossChoice
from metaloss.inner.observers import Measures

CELLS = 40_000_000  # images times resamples, at most


@dataclass(frozen=True)
class ScoreGain:
    """A mean difference of scores and its interval over tasks and images, in shares of one."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class FoldResults:
    """K choices, and what came of each on the images that it had not seen.

    Attributes:
        choices: one per fold.
        judged: likewise.
        draws: resamples of all folds' images.
        certainty: of the intervals.
        scale: how scores are shown.
    """

    choices: Sequence[LossChoice]
    judged: Sequence[ChoiceEvaluation]
    draws: Resamples
    certainty: float
    scale: MetricScale = ACCURACY

    @classmethod
    def of(
        cls,
        choices: Sequence[LossChoice],
        judged: Sequence[ChoiceEvaluation],
        certainty: float,
        key: Stream,
    ) -> "FoldResults":
        """The folds with new resamples: 2,000, or fewer where these would take much memory.

        Args:
            choices: one per fold.
            judged: one per fold.
            certainty: of the intervals.
            key: of the resamples.
        """
        # Folds share no validation images, so their tasks go into one set of resamples.
        tasks = _joined([x.tasks for x in judged])
        rows = tasks.val.rows.cpu()
        # A count for each image and resample is held in memory.
        resamples = min(2_000, CELLS // len(rows.unique()))
        metric = judged[0].metric
        scale = judged[0].scale
        if metric is None:
            draws = Draws.of(rows, tasks.val_classes.cpu(), key, resamples)
            return cls(choices, judged, draws, certainty, scale)
        by_metric = MetricResamples.of(metric, scale, tasks, key, resamples)
        return cls(choices, judged, by_metric, certainty, scale)

    @cached_property
    def choice_counts(self) -> Counter[str]:
        """How many folds chose each loss."""
        return Counter(x.winner for x in self.choices)

    def of_loss(self, name: str) -> list[Measures]:
        """One loss in all folds."""
        return [x.measures[name] for x in self.judged]

    def gain(self, name: str) -> ScoreGain:
        """A loss beside cross-entropy, whatever was chosen."""
        return self._gain(self.of_loss(name), self.of_loss(CE))

    def whole(self) -> ScoreGain:
        """The gain of every fold's chosen loss over cross-entropy: what this choice is worth."""
        return self._gain(self._winners(), self.of_loss(CE))

    def late(self) -> ScoreGain | None:
        """The gain of the chosen losses over cross-entropy with its best number of steps."""
        late = self.of_late()
        return self._gain(self._winners(), late) if late else None

    def late_over_own(self) -> ScoreGain | None:
        """The gain of cross-entropy's best number of steps over the family's."""
        late = self.of_late()
        return self._gain(late, self.of_loss(CE)) if late else None

    def of_late(self) -> list[Measures]:
        """Cross-entropy with its best number of steps in all folds.

        Empty where every loss has its best number of steps.
        """
        return [x.late for x in self.judged if x.late is not None]

    def _winners(self) -> list[Measures]:
        return [x.measures[c.winner] for c, x in zip(self.choices, self.judged, strict=True)]

    def _gain(self, ours: Sequence[Measures], theirs: Sequence[Measures]) -> ScoreGain:
        low, high = self.draws.gain_interval(_answers(ours), _answers(theirs), self.certainty)
        if self.scale.is_accuracy:
            # Of all images at once, as the share of right answers is.
            difference = _right(ours).double() - _right(theirs).double()
        else:
            difference = _scores(ours) - _scores(theirs)
        return ScoreGain(float(difference.mean()), low, high)

    def value(self, folds: Sequence[Measures]) -> float:
        """The mean value of the metric that losses are compared by."""
        score = accuracy(folds) if self.scale.is_accuracy else float(_scores(folds).mean())
        return self.scale.value(score)


def _joined(parts: Sequence[Tasks]) -> Tasks:
    """Tasks of several folds, which validate equally many images."""
    first = parts[0].val
    rows = torch.cat([x.val.rows for x in parts])
    label = torch.cat([x.val.label for x in parts])
    known = [x.classes for x in parts if x.classes is not None]
    val = TaskImages(first.images, rows, label, first.classes)
    # Nothing is trained on them any more.
    return Tasks(val, val, torch.cat(known) if len(known) == len(parts) else None)


def _answers(folds: Sequence[Measures]) -> Tensor:
    return torch.cat([x.answers for x in folds])


def _scores(folds: Sequence[Measures]) -> Float[Tensor, " T"]:
    """A failed training counts as 0."""
    return torch.cat([x.score for x in folds]).double().nan_to_num(nan=0.0)


def _right(folds: Sequence[Measures]) -> Bool[Tensor, "T V"]:
    return torch.cat([x.right for x in folds])


def accuracy(folds: Sequence[Measures]) -> float:
    """The mean, where a training that diverged counts as 0."""
    return float(_right(folds).double().mean())


@dataclass(frozen=True)
class Verdict:
    """The recommendation.

    Attributes:
        loss: the one to use; cross-entropy where there is no evidence for another.
        setting: its learning rate and number of steps, chosen on all images.
        best: the loss that was best on all images, whether or not there is evidence for it.
        gain: of choosing, over cross-entropy, on images that the choice had not seen.
        late: the same over cross-entropy with its best number of steps.
        chosen: how many folds chose each loss.
        certainty: of the intervals.
        scale: how scores are shown.
    """

    loss: str
    setting: Setting
    best: str
    gain: ScoreGain
    late: ScoreGain | None
    chosen: Mapping[str, int]
    certainty: float
    scale: MetricScale = ACCURACY

    @property
    def evidence(self) -> bool:
        """Whether there is any for another loss than cross-entropy."""
        return self.loss != CE

    @property
    def name(self) -> str:
        """What the loss is called, with its own parameters where those were chosen."""
        return self.setting.spec or self.loss

    @property
    def faster(self) -> bool:
        """Whether there is, and yet cross-entropy with more steps does as well."""
        return self.evidence and self.late is not None and self.late.low <= 0


def decide(final: LossChoice, folds: FoldResults) -> Verdict:
    """The verdict: cross-entropy unless the interval of the gain lies above 0."""
    # The gain of choosing decides, not that of the winner: the best of many is flattered.
    gain = folds.whole()
    best = final.winner
    loss = best if gain.low > 0 else CE
    return Verdict(
        loss,
        final.settings[loss],
        best,
        gain,
        folds.late(),
        folds.choice_counts,
        folds.certainty,
        folds.scale,
    )


def small(classes: int, images: str, steps: int, classifier: str, reached: float) -> str:
    """That the numbers are of small trainings, and how far those come.

    Args:
        classes: of a task.
        images: how many a class has to train with, in words.
        steps: how long a classifier trains.
        classifier: its name.
        reached: cross-entropy's accuracy in the folds.
    """
    return (
        f"All of this is of small trainings: {classes} classes{near_chance(reached, classes)}, "
        f"{images}, {classifier}, {steps} steps, in which cross-entropy reaches "
        f"{percent(reached)}. A real training on all images reaches another level, where another "
        "loss may be best."
    )


def sentences(verdict: Verdict, final: LossChoice, images: int) -> list[str]:
    """What the numbers allow one to say.

    Args:
        verdict: the recommendation.
        final: the choice on all images.
        images: how many there are.
    """
    first = _for(verdict) if verdict.evidence else _against(verdict, images)
    return [*first, _folds(verdict), *_late(verdict, final)]


def _for(verdict: Verdict) -> list[str]:
    loss = verdict.name
    setting = verdict.setting
    use = f"Use {loss} at learning rate {setting.lr:g} with {setting.steps} steps"
    if verdict.faster:  # then the advice holds for so short a training alone
        use = (
            f"Where training takes {setting.steps} steps, use {loss} at learning rate "
            f"{setting.lr:g}"
        )
    return [
        f"{use}: choosing so gains {_points(verdict.gain, verdict)} over cross-entropy "
        "on new images."
    ]


def _against(verdict: Verdict, images: int) -> list[str]:
    rate = f"(learning rate {verdict.setting.lr:g}, {verdict.setting.steps} steps)"
    begin = f"No evidence for anything but cross-entropy {rate}"
    if not any(n for name, n in verdict.chosen.items() if name != CE):
        return [f"{begin}: no fold found a better one."]
    if verdict.gain.low > 0:  # and yet cross-entropy is best on all images together
        gain = _points(verdict.gain, verdict)
        return [
            f"{begin}: it is the best on all images, though folds that chose otherwise gained "
            f"{gain}."
        ]
    lines = [f"{begin}: choosing another gains {_points(verdict.gain, verdict)} on new images."]
    # Where the whole interval lies below 0 there is nothing that more images could show.
    if verdict.gain.high < 0:
        return lines
    # How wide the interval is, not where it lies: a number of images from the gain seen would be
    # read off its noise.
    width = _amount((verdict.gain.high - verdict.gain.low) / 2, verdict.scale)
    about = f"With these {images} images gains below about {width} cannot be told from none"
    return [*lines, f"{about}; four times as many images would halve that."]


def _folds(verdict: Verdict) -> str:
    listed = ", ".join(
        f"{name_in_sentence(name)} {n}" for name, n in Counter(verdict.chosen).most_common()
    )
    folds = sum(verdict.chosen.values())
    best = name_in_sentence(verdict.best)
    return f"Chosen by the {folds} folds: {listed}; on all images: {best}."


def _late(verdict: Verdict, final: LossChoice) -> list[str]:
    """What becomes of a gain where cross-entropy may train for longer."""
    gain = verdict.late
    if not verdict.evidence or gain is None or final.late is None:
        return []
    steps = final.late.steps
    own_steps = verdict.setting.steps
    ce = f"With {steps} steps (learning rate {final.late.lr:g}) cross-entropy"
    if steps == own_steps:
        ce = "At its best number of steps, the same one, cross-entropy"
    again = f"; --set inner.steps={steps} asks what is best there" if steps != own_steps else ""
    if gain.high < 0:
        return [
            f"{ce} is better still, by {_amount(-gain.mean, verdict.scale)}: train for longer "
            f"rather than differently{again}."
        ]
    if gain.low <= 0:
        return [f"{ce} reaches the same: {verdict.name} is faster, not better{again}."]
    return [f"{ce} does not reach it: {verdict.name} generalises better here."]


def _points(gain: ScoreGain, verdict: Verdict) -> str:
    """A gain of scores with its interval; more is better, whatever the metric."""
    scale = verdict.scale
    mean, low, high = (
        f"{scale.number(x):+.{scale.digits}f}" for x in (gain.mean, gain.low, gain.high)
    )
    better = "" if scale.maximise else "less "
    of_what = "" if scale.is_accuracy else f" of {better}{scale.title}"
    interval = f"({100 * verdict.certainty:g} % interval {low} to {high})"
    return f"{mean}{scale.unit}{of_what} {interval}"


def _amount(gain: float, scale: MetricScale) -> str:
    return f"{scale.number(gain):.{scale.digits}f}{scale.unit}"
