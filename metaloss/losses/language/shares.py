"""What a class without a share of the target contributes to a loss.

And whether a loss is proportional to the target.
"""

from metaloss.losses.language.canonical import canonical
from metaloss.losses.language.expression import Expression, call
from metaloss.losses.language.primitives import PRIMITIVES

# Beside odd functions these are 0 at 0, and their slopes are finite there, or taken as 0.
_ZERO_AT_ZERO = ("square", "abs", "sqrt", "relu", "nrelu", "expm1", "quotient")
_LINEAR = ("div", "quotient", "aq")  # in their first argument
# Rounded, so that summands with the same α compare as equal.
_DIGITS = 12


def target_smoothing(e: Expression) -> float | None:
    """α where an expression is ((1 - α) y + α/C)·g, with g free of the label.

    0 for y·g(p); None where the expression has no such form.
    """
    smoothings = _smoothings(canonical(e)) if "y" in e.terminals else None
    return smoothings.pop() if smoothings and len(smoothings) == 1 else None


def _smoothings(e: Expression) -> set[float] | None:
    """Every α that occurs in a sum of such expressions.

    Empty for an expression that is 0; None where a summand has another form.
    """
    if _is_zero(e):
        return set()
    line = _line(e)
    # Factors of one sign: only then does α lie in [0, 1].
    if line is not None and line[0] * line[1] >= 0 and any(line):
        return {round(line[1] / (line[0] + line[1]), _DIGITS)}
    if e.head in ("add", "sub", "neg"):
        parts = [_smoothings(a) for a in e.args]
        return None if None in parts else set().union(*(x for x in parts if x is not None))
    if e.head == "mul" and not e.args[0].reads_label:
        return _smoothings(e.args[1])
    if e.head in ("mul", *_LINEAR) and not e.args[1].reads_label:
        return _smoothings(e.args[0])
    return None


def _is_zero(e: Expression) -> bool:
    """Whether it is a product with 0."""
    return (e.is_constant and e.value == 0) or (e.head == "mul" and any(map(_is_zero, e.args)))


def _line(e: Expression) -> tuple[float, float] | None:
    """a and b where an expression is a·y + b/C."""
    if e.head == "y":
        return 1.0, 0.0
    if e.head == "neg":
        return _scaled(e.args[0], -1.0)
    if e.head in ("add", "sub"):
        first = _line(e.args[0])
        second = _scaled(e.args[1], 1.0 if e.head == "add" else -1.0)
        return (
            None
            if first is None or second is None
            else (first[0] + second[0], first[1] + second[1])
        )
    if e.head == "mul":
        number, other = sorted(e.args, key=lambda a: not a.is_constant)
        return _scaled(other, number.value) if number.is_constant else None
    if e.head == "div" and e.args[0].is_constant and e.args[1].head == "C":
        return 0.0, e.args[0].value
    if e.head == "div" and e.args[1].is_constant and e.args[1].value:
        return _scaled(e.args[0], 1 / e.args[1].value)
    return None


def _scaled(e: Expression, factor: float) -> tuple[float, float] | None:
    line = _line(e)
    return None if line is None else (factor * line[0], factor * line[1])


def vanishes(e: Expression) -> bool:
    """Whether an expression is 0 where y is, for any prediction, as its products tell."""
    if e.head in ("mul", "max", "min"):
        return (any if e.head == "mul" else all)(map(vanishes, e.args))
    if e.head in ("add", "sub"):
        return all(map(vanishes, e.args))
    if e.head == "pow":
        return vanishes(e.args[0]) and e.args[1].is_constant and e.args[1].value > 0
    if e.args and (e.head in ("div", *_ZERO_AT_ZERO) or PRIMITIVES[e.head].parity < 0):
        return vanishes(e.args[0])
    return e.head == "y"


def divided(e: Expression) -> tuple[Expression | None, Expression | None]:
    """Two expressions whose sum this one is.

    The first vanishes where y is 0, the second is the rest; None stands for nothing.
    """
    if vanishes(e):
        return e, None
    if e.head == "neg":
        due, rest = divided(e.args[0])
        return due and call("neg", due), rest and call("neg", rest)
    if e.head in ("add", "sub"):
        (due, rest), (other_due, other_rest) = map(divided, e.args)
        return _joined(e.head, due, other_due), _joined(e.head, rest, other_rest)
    return None, e


def _joined(head: str, a: Expression | None, b: Expression | None) -> Expression | None:
    if a is None or b is None:
        return a if b is None else b if head == "add" else call("neg", b)
    return call(head, a, b)
