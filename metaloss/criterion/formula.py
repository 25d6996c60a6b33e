"""A formula as a criterion."""

from typing import Any, Self

import torch
from torch import Tensor

from metaloss.criterion.base import Criterion
from metaloss.criterion.loss_module import shares
from metaloss.losses.base import Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import CLASS_TERMINALS, COST, LABEL_TERMINALS
from metaloss.losses.language.formula import NO_SCALE, NO_SHIFT, Formula
from metaloss.losses.language.programs import (
    Program,
    evaluate,
    whole_gradient_program,
    whole_program,
)


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
        # Before the module is made, which asks whether it reads the clock.
        self.reads_clock = formula.reads_clock
        self.reads_past = formula.reads_past
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

    @property
    def reads_costs(self) -> bool:
        """Whether a terminal of it is the cost of a mistake."""
        return COST.head in self.formula.terminals

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
            return super()._traced_gain(classes)
        y = torch.tensor([1.0, 0.0], dtype=torch.float64)
        logp = -y.new_full((2,), classes).log()
        first = {}
        if self.clock is not None:
            first = {"t": y.new_zeros(()), "logn": self.clock[1].to(y)}
        slope = evaluate(self._slope, y, logp.exp(), logp, classes, first)
        per_class = classes if self.formula.reduction == "mean" else 1
        return (slope[1] - slope[0]) * self._slope.sign / (self.formula.temperature * per_class)

    def _evaluate(
        self,
        program: Program,
        y: Tensor,
        logp: Tensor,
        classes: int,
        label: Tensor | None = None,
    ) -> Tensor:
        """A program's value by class, or at the labels' classes alone."""
        value = evaluate(program, y, logp.exp(), logp, classes, self._seen(y, classes, label))
        return value / classes if self.formula.reduction == "mean" else value

    def _seen(self, y: Tensor, classes: int, label: Tensor | None = None) -> dict[str, Tensor]:
        """What it reads of all that it was told, by class or at the labels' alone."""
        seen: dict[str, Tensor] = {}
        if self.prior is not None and self.reads_prior:
            seen = self.class_terminals(classes, y)
            if label is not None:
                seen = {name: x[label][:, None] for name, x in seen.items()}
        if self.costs is not None and self.reads_costs:
            # A right answer costs nothing.
            seen["cost"] = self.image_costs(y) if label is None else torch.zeros_like(y)
        if self._past_of_batch is not None:
            past = self.past_terminal(y, classes)
            seen["past"] = past if label is None else past.gather(1, label[:, None])
        return seen if self.clock is None else seen | self.clock_terminals(y)

    @property
    def _reads_all_targets(self) -> bool:
        """Whether, with hard labels, more is read than each image's own class."""
        moves = self.formula.scale.terminals | self.formula.shift.terminals
        return self._rest is not None or not moves.isdisjoint(LABEL_TERMINALS)

    def _logp(self, logits: Tensor, soft: Tensor) -> Tensor:
        """The logarithms of p = softmax(scale · z / temperature + shift)."""
        formula = self.formula
        z = logits if formula.temperature == 1 else logits / formula.temperature
        classes = logits.shape[-1]
        if formula.plain_softmax:
            return z.log_softmax(-1)
        seen = self._seen(soft, classes)
        if formula.scale != NO_SCALE:
            z = z * evaluate(self._scale, soft, logits, logits, classes, seen)
        if formula.shift != NO_SHIFT:
            z = z + evaluate(self._shift, soft, logits, logits, classes, seen)
        return z.log_softmax(-1)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.formula, self.about, **options)

    def _repr_latex_(self) -> str:
        return f"${self.latex()}$"
