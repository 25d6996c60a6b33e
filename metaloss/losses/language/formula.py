"""A loss as one line of text.

An expression, elementwise over classes, and how it is reduced over them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from metaloss.losses.language.canonical import canonical, fingerprint
from metaloss.losses.language.expression import Expression
from metaloss.losses.language.parser import Parser
from metaloss.losses.language.shares import divided, target_smoothing

Reduction = Literal["sum", "mean"]


def reads_a_prediction(text: str) -> bool:
    """Whether p or logp occurs in a text.

    A text without them is no formula, but perhaps a name that was mistyped.
    """
    return re.search(r"\b(p|logp)\b", text) is not None


@dataclass(frozen=True)
class Formula:
    """A loss: the sum or mean over classes of an expression, then averaged over the batch.

    >>> str(Formula.parse("-y*logp"))
    'sum(-y * logp)'

    Attributes:
        expression: what each class contributes.
        reduction: over classes.
        temperature: what the logits are divided by before they become p and logp. It is no part of
            the expression, which sees one class at a time, where softmax sees all of them.
    """

    expression: Expression
    reduction: Reduction = "sum"
    temperature: float = 1.0

    @classmethod
    def parse(cls, text: str, names: Mapping[str, float] | None = None) -> Self:
        """The loss that a text means: `sum(...)`, `mean(...)` or a bare expression, which is
        summed.

        Args:
            text: as `str` gives it.
            names: further names, and the constants they stand for.

        Raises:
            SettingsError: shows the place, what was found there and what is allowed.
        """
        reader = Parser(text, names)
        reduction = reader.next.text
        temperature = 1.0
        # Without its bracket, `sum` is a name, which the parser refuses with a hint.
        if reduction not in get_args(Reduction) or reader.tokens[1].text != "(":
            e = reader.expression()
            reader.end()
            return cls(e)
        reader.at += 2
        e = reader.expression()
        if reader.take(","):
            temperature = _temperature(reader)
        reader.expect(")")
        if reader.next.kind != "end":
            reader.fail(f"nothing may follow {reduction}(...): it stands around the whole loss")
        return cls(e, reduction, temperature)  # type: ignore[arg-type]

    def __str__(self) -> str:
        option = "" if self.temperature == 1 else f", temperature={self.temperature!r}"
        return f"{self.reduction}({self.expression.text}{option})"

    def canonical(self) -> Self:
        """The same loss, its expression in canonical form."""
        return replace(self, expression=canonical(self.expression))

    @property
    def digest(self) -> str:
        """A hash that losses share which are the same but for order, signs and folded constants."""
        return fingerprint(str(self.canonical()))

    @property
    def target_smoothing(self) -> float | None:
        """How much of the target it spreads over all classes where its terms are that target times
        g(p), 0 for y·g(p).

        None where they have no such form.
        """
        return target_smoothing(self.expression)

    @property
    def divided(self) -> tuple[Expression | None, Expression | None]:
        """Its expression as a sum of two.

        The first is 0 in a class without a share of the target; the second is the rest.
        """
        return divided(canonical(self.expression))

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        factor = r"\frac{1}{C} " if self.reduction == "mean" else ""
        softmax = (
            rf",\ \hat{{y}} = \operatorname{{softmax}}(z / {self.temperature!r})"
            if self.temperature != 1
            else ""
        )
        return rf"{factor}\sum_{{c=1}}^{{C}} \left[{self.expression.latex()}\right]{softmax}"


def _temperature(reader: Parser) -> float:
    token = reader.next
    if token.text != "temperature":
        reader.fail(f"expected temperature=..., found {token.text!r}")
    reader.at += 1
    reader.expect("=")
    # An expression, because a named parameter may stand here: it is read as a constant.
    token = reader.next
    e = reader.expression()
    if not e.is_constant or e.value <= 0:
        reader.fail(f"temperature must be a number above 0, got {str(e)[:40]}", token)
    return e.value
