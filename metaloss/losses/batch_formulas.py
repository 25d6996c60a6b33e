"""Losses that read a whole batch: functions of soft counts, one class against the rest.

An image counts for a class by its share, the softmax p or a function of it. A loss is the mean over
the classes of what it makes of their counts. The classes need torch alone: `metaloss export` writes
their text into modules for others.
"""

import math
from dataclasses import dataclass

import torch


def ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """One divided by the other; 0, without a gradient, where the divisor is 0."""
    empty = below == 0
    return (above / below.masked_fill(empty, 1)).masked_fill(empty, 0)


@dataclass(frozen=True)
class SoftCounts:
    """How many images of a batch count for every class, and for which they should.

    Attributes:
        overlap: the sum of share times target, the true positives.
        predicted: the sum of the shares, the true and the false positives.
        actual: the sum of the targets, the true positives and the false negatives.
        total: all images.
        present: whether an image is of the class.
    """

    overlap: torch.Tensor
    predicted: torch.Tensor
    actual: torch.Tensor
    total: torch.Tensor
    present: torch.Tensor

    @property
    def f1(self) -> torch.Tensor:
        """2 TP/(2 TP + FP + FN)."""
        return ratio(2 * self.overlap, self.predicted + self.actual)

    @property
    def true_negatives(self) -> torch.Tensor:
        """The rest's images that do not count for the class."""
        return self.total - self.predicted - self.actual + self.overlap


@dataclass(frozen=True)
class BatchLoss:
    """A loss of a whole batch; the fields are its parameters, for P losses [P 1 1 1]."""

    name = ""
    scope = "reads a whole batch: it is no formula of an image's classes"

    def share(self, p: torch.Tensor) -> torch.Tensor:
        """How much an image of probability p counts for a class."""
        return p

    def share_slope(self, p: torch.Tensor) -> torch.Tensor | None:
        """The derivative of the share; None where the share is p."""
        return None

    def of_classes(self, counts: SoftCounts) -> torch.Tensor:
        """Every class's value."""
        raise NotImplementedError

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs; n runs over the images of the batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class DiceLoss(BatchLoss):
    """One minus twice the overlap of prediction and target over the sum of both (Milletari 2016).

    A class without an image in the batch has the value 0, as in segmentation_models_pytorch, whose
    defaults (no smoothing, 1e-7) are used.
    """

    smooth: float | torch.Tensor = 0.0

    name = "dice"

    def of_classes(self, counts: SoftCounts) -> torch.Tensor:
        """Every class's value."""
        below = (counts.predicted + counts.actual + self.smooth).clamp(min=1e-7)
        return (1 - (2 * counts.overlap + self.smooth) / below).where(counts.present, 0)

    def latex(self) -> str:
        """The formula in LaTeX."""
        above = r"2 \sum_n \hat{y}_{nc} y_{nc}"
        below = r"\sum_n \left(\hat{y}_{nc} + y_{nc}\right)"
        smooth = f" + {self.smooth:g}" if self.smooth else ""
        ratio = rf"\frac{{{above}{smooth}}}{{{below}{smooth}}}"
        return rf"\frac{{1}}{{C}} \sum_{{c:\, \sum_n y_{{nc}} > 0}} \left[1 - {ratio}\right]"


@dataclass(frozen=True)
class SoftF1Loss(BatchLoss):
    """One minus F1 = 2 TP/(2 TP + FP + FN) of soft counts (Bénédict 2021).

    A class without an image in the batch has the value 1 and no gradient.

    Attributes:
        double: the mean of that and the same of the rest, 2 TN/(2 TN + FP + FN) (Maiza 2019).
    """

    double: bool = False

    name = "soft_f1"

    def of_classes(self, counts: SoftCounts) -> torch.Tensor:
        """Every class's value."""
        if not self.double:
            return 1 - counts.f1
        below = 2 * counts.total - counts.predicted - counts.actual  # 2 TN + FP + FN
        return 1 - (counts.f1 + ratio(2 * counts.true_negatives, below)) / 2

    def latex(self) -> str:
        """The formula in LaTeX."""
        f1 = r"\frac{2 \mathrm{TP}_c}{2 \mathrm{TP}_c + \mathrm{FP}_c + \mathrm{FN}_c}"
        if self.double:
            f1 = rf"\frac{{1}}{{2}} {f1} - \frac{{1}}{{2}} {f1.replace('TP', 'TN')}"
        return (
            rf"\frac{{1}}{{C}} \sum_{{c=1}}^{{C}} \left[1 - {f1}\right],"
            r"\ \mathrm{TP}_c = \sum_n \hat{y}_{nc} y_{nc}"
        )


@dataclass(frozen=True)
class ConfusionLoss(BatchLoss):
    """One minus a score of the expected confusion matrix (Marchetti 2022).

    The threshold from which on an image counts for a class is random, so the share is the
    threshold's distribution function at p: a raised cosine around `mu` that ends at mu ± delta.

    Attributes:
        mu: the threshold's mean.
        delta: half of what it spans.
        f1: the score is F1; else the true skill statistic, recall + specificity - 1.
    """

    mu: float | torch.Tensor = 0.5
    delta: float | torch.Tensor = 0.5
    f1: bool = False

    name = "confusion"

    def share(self, p: torch.Tensor) -> torch.Tensor:
        """The probability that the threshold lies below p."""
        t = ((p - self.mu) / self.delta).clamp(-1, 1)
        return (1 + t + (math.pi * t).sin() / math.pi) / 2

    def share_slope(self, p: torch.Tensor) -> torch.Tensor:
        """The threshold's density at p."""
        t = ((p - self.mu) / self.delta).clamp(-1, 1)
        return (1 + (math.pi * t).cos()) / (2 * self.delta)

    def of_classes(self, counts: SoftCounts) -> torch.Tensor:
        """Every class's value."""
        if self.f1:
            return 1 - counts.f1
        recall = ratio(counts.overlap, counts.actual)
        specificity = ratio(counts.true_negatives, counts.total - counts.actual)
        return 1 - (recall + specificity - 1)

    def latex(self) -> str:
        """The formula in LaTeX."""
        score = (
            r"\frac{2 \mathrm{TP}_c}{2 \mathrm{TP}_c + \mathrm{FP}_c + \mathrm{FN}_c}"
            if self.f1
            else r"\frac{\mathrm{TP}_c}{\mathrm{TP}_c + \mathrm{FN}_c}"
            r" - \frac{\mathrm{TN}_c}{\mathrm{TN}_c + \mathrm{FP}_c} + 1"
        )
        return (
            rf"\frac{{1}}{{C}} \sum_{{c=1}}^{{C}} \left[1 - {score}\right],"
            r"\ \mathrm{TP}_c = \sum_n F(\hat{y}_{nc}) y_{nc}"
            rf",\ F' \propto 1 + \cos \frac{{\pi (\hat{{y}} - {self.mu:g})}}{{{self.delta:g}}}"
        )
