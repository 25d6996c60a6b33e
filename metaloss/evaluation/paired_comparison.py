"""Two losses on the same tasks from the same initial weights."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.evaluation.statistics import Draws, Paired, paired, rank_test, verdict


@dataclass(frozen=True)
class PairedComparison:
    """A loss and its baseline on the same tasks from the same initial weights.

    Attributes:
        score: of the loss, a training that diverged counting as 0.
        baseline_score: of the other one, likewise.
        gain: the difference, its interval over tasks.
        low, high: the interval that decides: the wider of that one and, where images are known, of
            that over tasks and images.
        p: of a rank test.
        verdict: in words.
    """

    score: float
    baseline_score: float
    gain: Paired
    low: float
    high: float
    p: float
    verdict: str

    @classmethod
    def of(
        cls,
        ours: Float[Tensor, "T *V"],
        theirs: Float[Tensor, "T *V"],
        key: Stream,
        resamples: Draws | None = None,
    ) -> Self:
        """Compare a loss with its baseline.

        Args:
            ours: the loss's scores; with resamples, which of its predictions are right.
            theirs: the baseline's, likewise.
            key: of the resamples of tasks alone.
            resamples: of the tasks and their images, for an interval over both.
        """
        if resamples is None:
            our_scores = ours.double()
            their_scores = theirs.double()
        else:
            our_scores = ours.double().mean(1)
            their_scores = theirs.double().mean(1)
        gain = paired(our_scores, their_scores, key)
        p = rank_test(our_scores, their_scores).p
        # Tasks share the images of one pool: an interval over tasks alone may be too narrow.
        intervals = [(gain.low, gain.high)]
        if resamples is not None:
            # A training that diverged has no right predictions.
            our_right = ours.where(our_scores.isfinite()[:, None], 0) > 0
            their_right = theirs.where(their_scores.isfinite()[:, None], 0) > 0
            intervals.append(resamples.interval(our_right, their_right))
        return cls(
            score=float(our_scores.nan_to_num(nan=0.0).mean()),
            baseline_score=float(their_scores.nan_to_num(nan=0.0).mean()),
            gain=gain,
            low=min(low for low, _ in intervals),
            high=max(high for _, high in intervals),
            p=p,
            verdict=verdict(p, *intervals),
        )
