"""A loss as one line of text.

An expression, elementwise over classes, and how it is reduced over them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from metaloss.losses.language.canonical import canonical, fingerprint
from metaloss.losses.language.expression import ONE, ZERO, Expression
from metaloss.losses.language.parser import Parser
from metaloss.losses.language.shares import divided, target_smoothing

Reduction = Literal["sum", "mean"]
NO_SCALE = ONE
NO_SHIFT = ZERO


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
            the expression, which sees one class at a time, where softmax sees all of them; nor are
            the next two.
        scale: what the logits are multiplied by, an expression that reads no prediction.
        shift: what is added to them then, as well: p = softmax(scale · z / temperature + shift).
    """

    expression: Expression
    reduction: Reduction = "sum"
    temperature: float = 1.0
    scale: Expression = NO_SCALE
    shift: Expression = NO_SHIFT

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
        # Without its bracket, `sum` is a name, which the parser refuses with a hint.
        if reduction not in get_args(Reduction) or reader.tokens[1].text != "(":
            e = reader.expression()
            reader.end()
            return cls(e)
        reader.at += 2
        e = reader.expression()
        options = _options(reader)
        if reader.next.kind != "end":
            reader.fail(f"nothing may follow {reduction}(...): it stands around the whole loss")
        return cls(e, reduction, **options)  # type: ignore[arg-type]

    def __str__(self) -> str:
        options = "" if self.temperature == 1 else f", temperature={self.temperature!r}"
        options += "" if self.scale == NO_SCALE else f", scale={self.scale.text}"
        options += "" if self.shift == NO_SHIFT else f", shift={self.shift.text}"
        return f"{self.reduction}({self.expression.text}{options})"

    def canonical(self) -> Self:
        """The same loss, its expressions in canonical form."""
        return replace(
            self,
            expression=canonical(self.expression),
            scale=canonical(self.scale),
            shift=canonical(self.shift),
        )

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """Its expression, and what it does to the logits before the softmax, where it does."""
        moves = (self.scale, NO_SCALE), (self.shift, NO_SHIFT)
        return (self.expression, *(e for e, none in moves if e != none))

    @property
    def terminals(self) -> frozenset[str]:
        """The names of all that it reads."""
        return frozenset().union(*(e.terminals for e in self.expressions))

    @property
    def reads_clock(self) -> bool:
        """Whether it depends on how far the training is."""
        return any(e.reads_clock for e in self.expressions)

    @property
    def reads_past(self) -> bool:
        """Whether it depends on what was predicted for an image before."""
        return self.expression.reads_past

    @property
    def plain_softmax(self) -> bool:
        """Whether p is the network's own softmax: no temperature, scale nor shift."""
        return self.temperature == 1 and len(self.expressions) == 1

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
        softmax = "" if self.plain_softmax else self._latex_softmax()
        return rf"{factor}\sum_{{c=1}}^{{C}} \left[{self.expression.latex()}\right]{softmax}"

    def _latex_softmax(self) -> str:
        """What p is, where it is not the network's own softmax."""
        z = "z" if self.temperature == 1 else f"z / {self.temperature!r}"
        if self.scale != NO_SCALE:
            z = rf"\left({self.scale.latex()}\right) \cdot {z}"
        if self.shift != NO_SHIFT:
            z = f"{z} + {self.shift.latex()}"
        return rf",\ \hat{{y}} = \operatorname{{softmax}}({z})"


def _options(reader: Parser) -> dict[str, float | Expression]:
    """What stands behind the expression, up to the bracket: each option once, in any order."""
    options: dict[str, float | Expression] = {}
    while reader.take(","):
        token = reader.next
        name = token.text
        if name not in ("temperature", "scale", "shift"):
            reader.fail(f"expected temperature=..., scale=... or shift=..., found {name!r}")
        if name in options:
            reader.fail(f"{name} stands here twice")
        reader.at += 1
        reader.expect("=")
        token = reader.next
        # An expression for temperature, too: a named parameter may stand there, read as a constant.
        e = reader.expression()
        number = f"{name} must be a number above 0, got {str(e)[:40]}"
        if name == "temperature" and not (e.is_constant and e.value > 0):
            reader.fail(number, token)
        if name == "scale" and e.is_constant and e.value <= 0:
            reader.fail(number, token)
        if e.reads_outputs:
            reader.fail(f"{name} comes before the softmax: it can read no p, logp or past", token)
        options[name] = e.value if name == "temperature" else e
    reader.expect(")")
    return options
