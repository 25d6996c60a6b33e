"""Two losses on the same tasks from the same initial weights."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from metaloss.core.metric_scale import ACCURACY
from metaloss.core.streams import Stream
from metaloss.evaluation.statistics import Paired, Resamples, paired, rank_test, verdict


@dataclass(frozen=True)
class PairedComparison:
    """A loss and its baseline on the same tasks from the same initial weights.

    Attributes:
        score: of the loss, a training that diverged counting as 0.
        baseline_score: of the other one, likewise.
        gain: the difference, its interval over tasks.
        low, high: the interval that decides: over tasks and images where images are known, else
            over tasks.
        p: of a rank test.
        verdict: in words.
        accuracy, baseline_accuracy: where scores are of another metric; a training that diverged
            counts as 0.
    """

    score: float
    baseline_score: float
    gain: Paired
    low: float
    high: float
    p: float
    verdict: str
    accuracy: float | None = None
    baseline_accuracy: float | None = None

    @classmethod
    def of(
        cls,
        ours: Float[Tensor, "T *V"],
        theirs: Float[Tensor, "T *V"],
        key: Stream,
        resamples: Resamples | None = None,
        negligible: float = ACCURACY.negligible,
    ) -> Self:
        """Compare a loss with its baseline.

        Args:
            ours: the loss's scores; with resamples, the answers that they are computed from.
            theirs: the baseline's, likewise.
            key: of the resamples of tasks alone.
            resamples: of the tasks and their images, for an interval over both.
            negligible: the difference of scores that is none in practice.
        """
        our_scores = ours.double() if resamples is None else resamples.scores(ours)
        their_scores = theirs.double() if resamples is None else resamples.scores(theirs)
        gain = paired(our_scores, their_scores, key)
        p = rank_test(our_scores, their_scores).p
        # Tasks share the images of one pool: an interval over tasks alone may be too narrow.
        low, high = (
            (gain.low, gain.high) if resamples is None else resamples.gain_interval(ours, theirs)
        )
        return cls(
            score=float(our_scores.nan_to_num(nan=0.0).mean()),
            baseline_score=float(their_scores.nan_to_num(nan=0.0).mean()),
            gain=gain,
            low=low,
            high=high,
            p=p,
            verdict=verdict(p, (low, high), negligible),
            accuracy=resamples.accuracy(ours) if resamples else None,
            baseline_accuracy=resamples.accuracy(theirs) if resamples else None,
        )
