"""Losses of all classes of an image together: what an expression of one class cannot say.

The classes need torch alone: `metaloss export` writes their text into the modules for others.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ImageLoss:
    """A loss of an image; the fields are its parameters, for P losses [P 1 1 1]."""

    name = ""
    scope = "sees all classes of an image at once: it is no formula of one class"

    def terms(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What each class adds, [... C], of the logarithms of probabilities and the target."""
        raise NotImplementedError

    def by_logp(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The gradient of the terms' sum by every logp, [... C]."""
        raise NotImplementedError

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        raise NotImplementedError


@dataclass(frozen=True)
class HardBootstrapLoss(ImageLoss):
    """Cross-entropy against the label, mixed with the most probable class (Reed 2015, hard).

    No gradient goes through the choice of that class; equally probable ones share it.

    Attributes:
        beta: the label's share.
    """

    beta: float | torch.Tensor = 0.8

    name = "bootstrap_hard"

    def _targets(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logp = logp.detach()
        top = (logp == logp.amax(-1, keepdim=True)).to(y)
        return self.beta * y + (1 - self.beta) * (top / top.sum(-1, keepdim=True))

    def terms(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Minus the target times logp."""
        q = self._targets(logp, y)
        # Selected: a class that is masked by a logit of -inf has no share of the target.
        return -q * logp.masked_fill(q == 0, 0)

    def by_logp(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Minus the target."""
        return -self._targets(logp, y)

    def latex(self) -> str:
        """The formula in LaTeX."""
        target = rf"{self.beta:g} y + {1 - self.beta:g} z"
        return (
            rf"-\sum_{{c=1}}^{{C}} \left({target}\right) \ln \hat{{y}},"
            r"\ z_c = 1\ \mathrm{where}\ c = \mathrm{argmax}_k\, \hat{y}_k,\ \mathrm{else}\ 0"
        )


@dataclass(frozen=True)
class NormalisedReverseLoss(ImageLoss):
    """Normalised and reverse cross-entropy, α NCE + β RCE (Ma 2020).

    NCE is cross-entropy over its sum for all classes as the label, RCE is cross-entropy of the
    target under the prediction, log 0 held at log 1e-4.

    Attributes:
        alpha: of NCE.
        beta: of RCE.
    """

    alpha: float | torch.Tensor = 1.0
    beta: float | torch.Tensor = 1.0

    name = "nce_rce"

    def terms(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Every class's part of both."""
        # Selected: a class that is masked by a logit of -inf is no label.
        normalised = -y * logp.masked_fill(y == 0, 0) / -logp.sum(-1, keepdim=True)
        return self.alpha * normalised - self.beta * logp.exp() * y.clamp(1e-4, 1).log()

    def by_logp(self, logp: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """(NCE - y)/Σ_k -log p_k, times α, and -p log y, times β."""
        total = -logp.sum(-1, keepdim=True)
        value = -(y * logp.masked_fill(y == 0, 0)).sum(-1, keepdim=True) / total
        normalised = (value - y) / total
        return self.alpha * normalised - self.beta * logp.exp() * y.clamp(1e-4, 1).log()

    def latex(self) -> str:
        """The formula in LaTeX."""
        return (
            rf"\sum_{{c=1}}^{{C}} \left[{self.alpha:g} \frac{{y \ln \hat{{y}}}}"
            rf"{{\sum_k \ln \hat{{y}}_k}}"
            rf" - {self.beta:g}\, \hat{{y}} \ln \max\left(y, 10^{{-4}}\right)\right]"
        )
