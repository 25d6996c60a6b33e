"""What follows from the gain of choosing a loss, whatever trainings have judged it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.evaluation.tuning import Setting
from metaloss.experiments.comparison.losses import CE
from metaloss.experiments.recommendation.rivals import RivalChoice, setting_in_words
from metaloss.experiments.recommendation.selection import LossChoice

# Of the interval that says whether a search is worth it: no in nine of ten cases without a gain.
SEARCH_CERTAINTY = 0.8
# What its low end must reach, as a share of what is negligible: a fifth of a point of accuracy.
SEARCH_LEAST = 0.1


@dataclass(frozen=True)
class ScoreGain:
    """A mean difference of scores and its interval over tasks and images, in shares of one."""

    mean: float
    low: float
    high: float


class ChoiceGains(Protocol):
    """What choices are worth, each made without a fold's images and judged on them."""

    @property
    def certainty(self) -> float:
        """Of the intervals."""

    @property
    def scale(self) -> MetricScale:
        """How scores are shown."""

    @property
    def choice_counts(self) -> Mapping[str, int]:
        """How many folds chose what."""

    def whole(self) -> ScoreGain:
        """The gain over cross-entropy of what each fold chose, or of what is fixed."""

    def late(self) -> ScoreGain | None:
        """The same over cross-entropy with its best number of steps; None where it has that."""

    def fixed_to(self, name: str) -> Self:
        """The same folds, with this in the place of what each of them chose."""


def worth_searching(gain: ScoreGain, scale: MetricScale) -> bool:
    """Whether a search may be worth it: even the least that the losses tried may gain is a gain.

    Args:
        gain: of choosing among losses alone.
        scale: how scores are shown.
    """
    return gain.low >= SEARCH_LEAST * scale.negligible


@dataclass(frozen=True)
class Verdict:
    """The recommendation.

    Attributes:
        loss: what to use, a loss or what is none; cross-entropy where nothing speaks for anything
            else.
        setting: learning rate and number of steps, chosen on all images; cross-entropy's for what
            is no loss.
        best: what was best on all images, whether or not there is evidence for it.
        gain: of choosing, or of the loss that was expected to help where that is used, over
            cross-entropy, on images that were held out.
        late: the same over cross-entropy with its best number of steps; None where it has that.
        chosen: how many folds chose what.
        certainty: of the intervals.
        scale: how scores are shown.
        rival: what is recommended where it is no loss.
        expected: whether it is the loss that was known to help before these images were looked at.
    """

    loss: str
    setting: Setting
    best: str
    gain: ScoreGain
    late: ScoreGain | None
    chosen: Mapping[str, int]
    certainty: float
    scale: MetricScale = ACCURACY
    rival: RivalChoice | None = None
    expected: bool = False

    @property
    def changes(self) -> bool:
        """Whether something else than cross-entropy is to be used."""
        return self.loss != CE

    @property
    def evidence(self) -> bool:
        """Whether these images themselves are evidence for it."""
        return self.changes and self.gain.low > 0

    @property
    def name(self) -> str:
        """What it is called, with its own parameters where those were chosen."""
        if self.rival is None:
            return self.setting.spec or self.loss
        own = setting_in_words(self.rival)
        return f"{self.loss} ({own})" if own else self.loss

    @property
    def faster(self) -> bool:
        """Whether there is, and yet cross-entropy with more steps does as well."""
        return self.evidence and self.late is not None and self.late.low <= 0


def decide(final: LossChoice, folds: ChoiceGains, expected: str = "") -> Verdict:
    """The verdict: what was chosen where the interval of its gain lies above 0, the loss that was
    expected to help where that gained more, or else cross-entropy.

    Args:
        final: the choice on all images.
        folds: what came of the folds.
        expected: the loss that is known to help on such images; "" where none is.
    """
    # The gain of choosing decides, not that of the winner: the best of many is flattered.
    gain = folds.whole()
    best = final.winner
    use = best if gain.low > 0 else CE
    if expected:
        # It was named before these images were looked at, so nothing flatters it.
        as_it_is = folds.fixed_to(expected)
        own = as_it_is.whole()
        if own.mean > (gain.mean if use != CE else 0.0):
            use, gain, folds = expected, own, as_it_is
    return Verdict(
        use,
        final.settings.get(use, final.settings[CE]),
        best,
        gain,
        folds.late(),
        folds.choice_counts,
        folds.certainty,
        folds.scale,
        final.rivals.get(use),
        expected=bool(expected) and use == expected,
    )
