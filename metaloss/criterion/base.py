"""One loss for ordinary training: a drop-in for `torch.nn.CrossEntropyLoss`."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from metaloss.core import registry
from metaloss.core.population import Population
from metaloss.criterion.loss_module import LossModule, shares
from metaloss.genomes import Genome
from metaloss.losses.base import Losses, TrainingTargets
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import CLASS_TERMINALS
from metaloss.losses.language.formula import NO_SCALE, NO_SHIFT, Formula
from metaloss.losses.language.programs import (
    Program,
    evaluate,
    whole_gradient_program,
    whole_program,
)
from metaloss.losses.phenotype import gain_tensor


class Criterion(LossModule):
    """A loss, used like `torch.nn.CrossEntropyLoss`.

    Takes logits [N, C] or [N, C, ...] and class indices [N, ...] or distributions over classes [N,
    C, ...]. It has no trainable parameters: what evolution found is in buffers that no `state_dict`
    holds, as its own folder does.

    Args:
        about: what its file says about the loss.
        options: as `LossModule`'s.
    """

    folder: Path | None = None  # that it was read from

    def __init__(self, about: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.about = about or {}

    def losses(self) -> Losses:
        """The loss as a population of one."""
        raise NotImplementedError

    def describe(self) -> str:
        """The loss in one line."""
        raise NotImplementedError

    def latex(self) -> str | None:
        """The formula in LaTeX, without dollar signs; None for a loss that is no formula."""
        return None

    @property
    def identity(self) -> object:
        """What makes it this loss, whatever its options: losses of equal identity are one.

        None where that is not known.
        """
        return None

    @property
    def home_classes(self) -> int | None:
        """The number of classes that its arithmetic is traced for; None: for any."""
        return None

    def with_options(self, **options: Any) -> Self:
        """The same loss with another `weight`, `reduction`, `label_smoothing`, `ignore_index`,
        `normalise` or `prior`.

        Raises:
            TypeError: there is no such option.
            ValueError: an option cannot have this value.
        """
        for name in set(options) - set(self.OPTIONS):
            raise TypeError(registry.unknown_message("option", name, self.OPTIONS))
        copy = self._copy(**{**{name: getattr(self, name) for name in self.OPTIONS}, **options})
        copy.folder = self.folder
        return copy

    @property
    def reads_prior(self) -> bool:
        """Whether it depends on how many training images each class has."""
        return False

    def fit_prior(self, labels: Tensor, classes: int | None = None) -> Self:
        """The same loss, told how many training images each class has.

        Args:
            labels: class indices of all images that one trains on, of any shape; those of
                `ignore_index` do not count.
            classes: how many there are; one more than the highest label where None.

        Raises:
            ValueError: no label counts, or one is no class.
        """
        flat = torch.as_tensor(labels).flatten().long()
        flat = flat[flat != self.ignore_index]
        if not len(flat) or flat.min() < 0 or (classes is not None and flat.max() >= classes):
            found = f"{int(flat.min())} to {int(flat.max())}" if len(flat) else "none"
            raise ValueError(f"labels must be class indices from 0 on, got {found}")
        return self.with_options(prior=flat.bincount(minlength=classes or 0))

    def _copy(self, **options: Any) -> Self:
        raise NotImplementedError

    def terms(self, logits: Tensor, soft: Tensor) -> Tensor:
        """What each image's value is the sum of, [N, C] or [N, 1], of logits and targets [N, C]."""
        # One task for the target [T B C], one candidate and one task for the logits [P T B C].
        counts = None if self.prior is None else self.prior[None]
        targets = TrainingTargets(soft[None], counts=counts)
        return self.losses().bind(targets).terms(logits[None, None])[0, 0]

    def gain(self, classes: int) -> float:
        """The first pull on the true logit relative to cross-entropy's, at uniform predictions."""
        if classes not in self._gains:
            self._gains[classes] = float(gain_tensor(self.losses(), classes))
        return self._gains[classes]

    def _divisor(self, classes: int) -> float | Tensor:
        # A graph of tensor operations holds no number that Python is still to compute.
        # A graph for any number of classes has a symbol.
        known = isinstance(classes, int) and classes in self._gains
        if torch.compiler.is_compiling() and not known:
            return self._traced_gain(classes)
        return self.gain(classes)

    def _traced_gain(self, classes: int) -> Tensor:
        """The gain by tensor operations alone."""
        return gain_tensor(self.losses(), classes)

    def finite_where_masked(self) -> bool:
        """Whether value and gradient stay finite where a class has the logit -inf.

        That class is not the label: it is masked out of the prediction.
        """
        logits = torch.zeros(1, self.classes or 3)
        logits[0, 1] = -torch.inf
        logits.requires_grad_()
        value = self._labelled(logits, torch.zeros(1, dtype=torch.int64)).sum()
        # Where a loss does not depend on its logits, autograd would raise an error.
        if not value.requires_grad:
            return bool(value.isfinite())
        (gradient,) = torch.autograd.grad(value, logits)
        return bool(value.isfinite() and gradient.isfinite().all())

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
        self,
        genome: Genome,
        candidate: Population,
        about: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(about, **options)
        self.genome = genome
        self.classes = genome.classes
        self._kind = type(candidate)
        self._fields = tuple(field.name for field in fields(candidate))
        # Buffers follow the module to its device; not persistent, they are in no `state_dict`.
        for name in self._fields:
            self.register_buffer(name, getattr(candidate, name).detach().clone(), persistent=False)
        if self.normalise and self.classes:
            self.gain(self.classes)  # `torch.compile` could not trace it

    @property
    def candidate(self) -> Population:
        """The loss as a population of one."""
        return self._kind(**{name: getattr(self, name) for name in self._fields})

    @property
    def reads_prior(self) -> bool:
        """Whether its genome has a part for the classes' shares."""
        return bool(getattr(self.genome, "prior", False))

    def losses(self) -> Losses:
        """The candidate's loss."""
        return self.genome.losses(self.candidate)

    @property
    def identity(self) -> object:
        """The genome and the candidate's numbers."""
        return self.genome, [getattr(self, name).tolist() for name in self._fields]

    @property
    def home_classes(self) -> int:
        """The number of classes of its genome; a network's arithmetic depends on it."""
        return self.classes or int(getattr(self.genome, "home_classes", 10))

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

    _PROGRAMS = ("_scale", "_shift", "_whole", "_slope", "_due", "_rest")

    def __init__(
        self, formula: Formula, about: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(about, **options)
        self.formula = formula
        self.weighs_terms = formula.target_smoothing is not None
        self._compile()

    def _compile(self) -> None:
        """Write the formula's programs."""
        formula = self.formula
        # Compiled once: within `torch.compile` and `torch.export` nothing but tensor operations is
        # left to do.
        self._scale = whole_program(formula.scale)
        self._shift = whole_program(formula.shift)
        self._whole = whole_program(formula.expression)
        self._slope = whole_gradient_program(formula.expression)
        due, rest = formula.divided
        # 0 in a class without a share of the target.
        self._due = None if due is None else whole_program(due)
        self._rest = None if rest is None else whole_program(rest)

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the programs, which follow from the formula.

        They hold functions that pickle cannot name.
        """
        return {key: value for key, value in self.__dict__.items() if key not in self._PROGRAMS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the programs again."""
        super().__setstate__(state)
        self._compile()

    @property
    def reads_prior(self) -> bool:
        """Whether a terminal of it is one of the classes' shares."""
        return not self.formula.terminals.isdisjoint(CLASS_TERMINALS)

    def losses(self) -> Losses:
        """The formula's loss."""
        return Formulas.of([self.formula])

    @property
    def identity(self) -> object:
        """The formula."""
        return self.formula

    def describe(self) -> str:
        """The formula."""
        return str(self.formula)

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        return self.formula.latex()

    def terms(self, logits: Tensor, soft: Tensor) -> Tensor:
        """One term per class."""
        logp = self._logp(logits, soft)
        classes = logits.shape[-1]
        # Every class has a share of a smoothed target.
        if self._due is None or self.label_smoothing:
            return self._evaluate(self._whole, soft, logp, classes)
        # Selected, not multiplied by 0: log p is infinite where a class is masked by a logit of
        # -inf.
        absent = soft == 0
        due = self._evaluate(self._due, soft, logp.masked_fill(absent, 0), classes)
        due = due.masked_fill(absent, 0)
        return due if self._rest is None else due + self._evaluate(self._rest, soft, logp, classes)

    def _labelled(self, logits: Tensor, label: Tensor) -> Tensor:
        if self._due is None or self.label_smoothing:
            return super()._labelled(logits, label)
        # Of this part all terms but the label's are 0: with 1,000 classes they would be most of the
        # work.
        # Where no target is read, what stands in its place makes no difference.
        soft = shares(label, logits) if self._reads_all_targets else logits
        logp = self._logp(logits, soft)
        classes = logits.shape[-1]
        label_logp = logp.gather(1, label[:, None])
        of_label = torch.ones_like(label_logp)
        value = self._evaluate(self._due, of_label, label_logp, classes, label)[:, 0]
        if self._rest is not None:
            value = value + self._evaluate(self._rest, soft, logp, classes).sum(-1)
        return (
            value
            if self.weight is None or not self.weighs_terms
            else value * self.weight.to(logits)[label]
        )

    def _traced_gain(self, classes: int) -> Tensor:
        # The label's class and another, both of probability 1/C.
        if len(self.formula.expressions) > 1:
            return gain_tensor(self.losses(), classes)
        y = torch.tensor([1.0, 0.0], dtype=torch.float64)
        logp = -y.new_full((2,), classes).log()
        slope = self._evaluate(self._slope, y, logp, classes) * (
            self._slope.sign / self.formula.temperature
        )
        return slope[1] - slope[0]

    def _evaluate(
        self,
        program: Program,
        y: Tensor,
        logp: Tensor,
        classes: int,
        label: Tensor | None = None,
    ) -> Tensor:
        """A program's value by class, or at the labels' classes alone."""
        known = self._class_terminals(classes, logp, label)
        value = evaluate(program, y, logp.exp(), logp, classes, known)
        return value / classes if self.formula.reduction == "mean" else value

    def _class_terminals(
        self, classes: int, like: Tensor, label: Tensor | None = None
    ) -> dict[str, Tensor] | None:
        """What it reads of the classes' shares, if it does and they are not even."""
        if self.prior is None or not self.reads_prior:
            return None
        known = self.class_terminals(classes, like)
        return known if label is None else {k: x[label][:, None] for k, x in known.items()}

    @property
    def _reads_all_targets(self) -> bool:
        """Whether, with hard labels, more is read than each image's own class."""
        moves = self.formula.scale.terminals | self.formula.shift.terminals
        return self._rest is not None or "y" in moves

    def _logp(self, logits: Tensor, soft: Tensor) -> Tensor:
        """The logarithms of p = softmax(scale · z / temperature + shift)."""
        formula = self.formula
        z = logits if formula.temperature == 1 else logits / formula.temperature
        known = self._class_terminals(logits.shape[-1], logits)
        if formula.scale != NO_SCALE:
            z = z * evaluate(self._scale, soft, logits, logits, logits.shape[-1], known)
        if formula.shift != NO_SHIFT:
            z = z + evaluate(self._shift, soft, logits, logits, logits.shape[-1], known)
        return z.log_softmax(-1)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.formula, self.about, **options)

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"
