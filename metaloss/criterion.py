"""One loss for ordinary training: a drop-in for `torch.nn.CrossEntropyLoss`."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from metaloss import registry
from metaloss.formulas import Formulas
from metaloss.genomes import Genome
from metaloss.language.formula import Formula
from metaloss.language.programs import evaluate, whole_program
from metaloss.losses import Losses
from metaloss.phenotype import gain
from metaloss.population import Population


def rows(x: Tensor) -> Tensor:
    """Logits or shares [N, C, ...] or [C], one row of classes per place."""
    x = x.movedim(1, -1) if x.ndim > 1 else x
    return x.reshape(-1, x.shape[-1])


def widened(logits: Tensor) -> Tensor:
    """The same of logits, in float32 at least."""
    flat = rows(logits)
    return flat if flat.dtype == torch.float64 else flat.float()


def shares(label: Tensor, like: Tensor) -> Tensor:
    """Class indices as distributions; not by `one_hot`, which `torch.export` writes for one number of classes only."""
    return torch.zeros_like(like).scatter(1, label[:, None], 1.0)


class Criterion(nn.Module):
    """A loss, used like `torch.nn.CrossEntropyLoss`.

    Takes logits [N, C] or [N, C, ...] and class indices [N, ...] or distributions over classes [N, C, ...]. It has no
    trainable parameters: what evolution found is in its buffers.

    Args:
        about: what its file says about the loss.
        weight: a factor per class [C], as in `CrossEntropyLoss`.
        reduction: "mean", "sum" or "none".
        label_smoothing: share of every target that is spread over all classes.
        ignore_index: a class index whose places count for nothing.
        normalise: divide by the loss's gain, so that its first steps are as long as cross-entropy's.
    """

    OPTIONS = ("weight", "reduction", "label_smoothing", "ignore_index", "normalise")
    classes: int | None = None  # the one number of classes it works for; None: any
    folder: Path | None = None  # that it was read from

    def __init__(
        self,
        about: dict[str, Any] | None = None,
        *,
        weight: Tensor | None = None,
        reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must lie in [0, 1], got {label_smoothing}")
        self.about = about or {}
        self.reduction, self.label_smoothing, self.ignore_index = reduction, label_smoothing, ignore_index
        self.normalise = normalise
        self._gains: dict[int, float] = {}
        self.weight: Tensor | None
        self.register_buffer("weight", weight)

    def losses(self) -> Losses:
        """The loss as a population of one."""
        raise NotImplementedError

    def describe(self) -> str:
        """The loss in one line."""
        raise NotImplementedError

    def with_options(self, **options: Any) -> Self:
        """The same loss with another `weight`, `reduction`, `label_smoothing`, `ignore_index` or `normalise`.

        Raises:
            TypeError: there is no such option.
            ValueError: an option cannot have this value.
        """
        for name in set(options) - set(self.OPTIONS):
            raise TypeError(registry.unknown("option", name, self.OPTIONS))
        copy = self._copy(**{**{name: getattr(self, name) for name in self.OPTIONS}, **options})
        copy.folder = self.folder
        return copy

    def _copy(self, **options: Any) -> Self:
        raise NotImplementedError

    def terms(self, logits: Tensor, soft: Tensor) -> Tensor:
        """What each image's value is the sum of, [N, C] or [N, 1], of logits and targets [N, C]."""
        return self.losses().bind(soft[None]).terms(logits[None, None])[0, 0]

    def gain(self, classes: int) -> float:
        """The first pull on the true logit relative to cross-entropy's, at uniform predictions."""
        if classes not in self._gains:
            self._gains[classes] = gain(self.losses(), classes)
        return self._gains[classes]

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss; a scalar, or one value per place where `reduction` is "none".

        Raises:
            ValueError: the shapes do not go together, or the loss is made for another number of classes.
        """
        self._check(logits, target)
        # Losses have steep places: half precision is for the network, not for them.
        with torch.autocast(logits.device.type, enabled=False):
            flat = widened(logits)
            if target.is_floating_point():
                value, mass = self._soft(flat, rows(target).to(flat))
            else:
                value, mass = self._hard(flat, target.reshape(-1))
            if self.normalise:
                value = value / self.gain(flat.shape[-1])
            if self.reduction == "none":
                return value.reshape(logits.select(min(1, logits.ndim - 1), 0).shape)
            return value.sum() / mass if self.reduction == "mean" else value.sum()

    def _soft(self, logits: Tensor, soft: Tensor) -> tuple[Tensor, Tensor | int]:
        """Every place's value under its distribution over classes, and what `mean` divides by."""
        return self._values(logits, self._smooth(soft)), logits.shape[0]

    def _hard(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Every place's value under its class, and what `mean` divides by."""
        valid = label != self.ignore_index
        label = label.where(valid, 0)
        share = torch.ones_like(label, dtype=logits.dtype) if self.weight is None else self.weight.to(logits)[label]
        return self._labelled(logits, label).where(valid, 0), share.where(valid, 0).sum()

    def _labelled(self, logits: Tensor, label: Tensor) -> Tensor:
        return self._values(logits, self._smooth(shares(label, logits)))

    def _smooth(self, soft: Tensor) -> Tensor:
        s = self.label_smoothing
        return soft * (1 - s) + s / soft.shape[-1] if s else soft

    def _values(self, logits: Tensor, soft: Tensor) -> Tensor:
        terms = self.terms(logits, soft)
        if self.weight is not None:
            weight = self.weight.to(logits)
            # A loss without terms per class weighs the image by its target's weight.
            terms = terms * (weight if terms.shape[-1] > 1 else (weight * soft).sum(-1, keepdim=True))
        return terms.sum(-1)

    def _check(self, logits: Tensor, target: Tensor) -> None:
        axis = min(1, logits.ndim - 1)
        shape = (*logits.shape[:axis], *logits.shape[axis + 1 :])
        if target.shape != (logits.shape if target.is_floating_point() else shape):
            found = f"target {tuple(target.shape)} and logits {tuple(logits.shape)}"
            kinds = f"{tuple(shape)} (integers: classes) or {tuple(logits.shape)} (floats: shares)"
            raise ValueError(f"{found}: expected targets {kinds}")
        if self.classes not in (None, logits.shape[axis]):
            raise ValueError(f"this loss is made for {self.classes} classes, got {logits.shape[axis]}")

    def _get_name(self) -> str:
        return "Criterion"

    def extra_repr(self) -> str:
        """The loss in words, and the options that are not the defaults."""
        options = [f"reduction='{self.reduction}'"] if self.reduction != "mean" else []
        options += [f"label_smoothing={self.label_smoothing}"] if self.label_smoothing else []
        options += ["normalise=True"] if self.normalise else []
        return ", ".join([self.describe(), *options])


class GenomeCriterion(Criterion):
    """A candidate of a genome.

    Args:
        genome: the loss's representation.
        candidate: a population of one.
        about, options: as `Criterion`'s.
    """

    def __init__(
        self, genome: Genome, candidate: Population, about: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(about, **options)
        self.genome, self.classes, self._kind = genome, genome.classes, type(candidate)
        for field in fields(candidate):
            self.register_buffer(field.name, getattr(candidate, field.name).detach().clone())

    @property
    def candidate(self) -> Population:
        """The loss as a population of one."""
        return self._kind(**{field.name: getattr(self, field.name) for field in fields(self._kind)})

    def losses(self) -> Losses:
        """The candidate's loss."""
        return self.genome.losses(self.candidate)

    def describe(self) -> str:
        """The genome's words for it."""
        return self.genome.describe(self.candidate, 0)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.genome, self.candidate, self.about, **options)


class FormulaCriterion(Criterion):
    """A loss that is written down.

    Args:
        formula: the loss.
        about, options: as `Criterion`'s.
    """

    def __init__(self, formula: Formula, about: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(about, **options)
        self.formula = formula
        # Compiled here: within `torch.compile` and `torch.export` nothing but tensor operations is left to do.
        self._program, self._sparse = whole_program(formula.expression), formula.reads_the_true_class_alone

    def losses(self) -> Losses:
        """The formula's loss."""
        return Formulas.of([self.formula])

    def describe(self) -> str:
        """The formula."""
        return str(self.formula)

    def terms(self, logits: Tensor, soft: Tensor) -> Tensor:
        """One term per class."""
        return self._evaluate(soft, self._logp(logits), logits.shape[-1])

    def _labelled(self, logits: Tensor, label: Tensor) -> Tensor:
        if not self._sparse or self.label_smoothing:
            return super()._labelled(logits, label)
        # All terms but the true class's are 0: with 1,000 classes they would be most of the work.
        logp = self._logp(logits).gather(1, label[:, None])
        value = self._evaluate(torch.ones_like(logp), logp, logits.shape[-1])[:, 0]
        return value if self.weight is None else value * self.weight.to(logits)[label]

    def _evaluate(self, y: Tensor, logp: Tensor, classes: int) -> Tensor:
        value = evaluate(self._program, y, logp.exp(), logp, classes)
        return value / classes if self.formula.reduction == "mean" else value

    def _logp(self, logits: Tensor) -> Tensor:
        t = self.formula.temperature
        return (logits if t == 1 else logits / t).log_softmax(-1)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.formula, self.about, **options)

    def _repr_latex_(self) -> str:
        return f"${self.formula.latex()}$"
