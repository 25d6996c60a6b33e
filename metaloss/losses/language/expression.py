"""Losses as expression trees: what they are made of, and how they print."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metaloss.losses.language.primitives import PRIMITIVES

# The number of classes, the target, the probability and its logarithm; of each class's training
# images the share, the logarithm of C times the share, and the number; what the class costs as the
# answer; the share of the training's steps that is done, and the logarithm of their number; the
# running mean of the image's own earlier predictions.
TERMINALS = ("C", "y", "p", "logp", "prior", "logprior", "count", "cost", "t", "logn", "past")
PREDICTION = frozenset(("p", "logp"))
CLASS_TERMINALS = frozenset(("prior", "logprior", "count"))
CLOCK_TERMINALS = frozenset(("t", "logn"))
LABEL_TERMINALS = frozenset(("y", "cost"))  # what follows from the image's label
# the largest tree that is read
DEPTH = 64
NODES = 512
# How tightly an operator binds.
_LEVELS = {"add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3, "pow": 4}
# Terminals, constants and name(...) bind more tightly than any operator.
_ATOM = 5
_LATEX = {
    "C": "C",
    "y": "y",
    "p": r"\hat{y}",
    "logp": r"\ln \hat{y}",
    "prior": r"\pi",
    "logprior": r"\ln C\pi",
    "count": "n",
    "cost": "K",
    "t": "t",
    "logn": r"\ln N",
    "past": r"\bar{y}",
}
# Terminals that LaTeX writes in two parts.
_COMPOUND = {"logp": 3, "logprior": 2, "logn": 3}


@dataclass(frozen=True)
class Expression:
    """A tree: a terminal, a constant, or a primitive of smaller trees.

    >>> str(call("mul", call("neg", Y), LOGP))
    '-y * logp'

    Attributes:
        head: the name of the terminal or primitive; "" for a constant.
        args: what the primitive is applied to.
        value: the constant's.
    """

    head: str
    args: tuple["Expression", ...] = ()
    value: float = 0.0

    def __post_init__(self) -> None:
        # Never -0.0, which equals 0.0 but prints otherwise.
        object.__setattr__(self, "value", self.value + 0.0)
        # Once: a tree is looked up in many caches, and its hash depends on every node.
        object.__setattr__(self, "_hash", hash((self.head, self.args, self.value)))

    def __hash__(self) -> int:
        value: int = self.__dict__["_hash"]
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        # Hashes of strings differ between processes.
        return Expression, (self.head, self.args, self.value)

    def __str__(self) -> str:
        return self.text

    @cached_property
    def size(self) -> int:
        """The number of nodes of the tree."""
        return 1 + sum(a.size for a in self.args)

    @cached_property
    def height(self) -> int:
        """How many steps from here to the deepest leaf."""
        return 1 + max((a.height for a in self.args), default=-1)

    @cached_property
    def terminals(self) -> frozenset[str]:
        """The names of the terminals within."""
        return (
            frozenset().union(*(a.terminals for a in self.args))
            if self.args
            else frozenset({self.head} - {""})
        )

    @property
    def varies(self) -> bool:
        """Whether it depends on what the classifier says."""
        return not self.terminals.isdisjoint(PREDICTION)

    @property
    def reads_label(self) -> bool:
        """Whether it depends on which class is the true one."""
        return not self.terminals.isdisjoint(LABEL_TERMINALS)

    @property
    def reads_clock(self) -> bool:
        """Whether it depends on how far the training is."""
        return not self.terminals.isdisjoint(CLOCK_TERMINALS)

    @property
    def reads_past(self) -> bool:
        """Whether it depends on what was predicted for the image before."""
        return PAST.head in self.terminals

    @property
    def reads_outputs(self) -> bool:
        """Whether it depends on what the classifier says, or has said."""
        return self.varies or self.reads_past

    @property
    def is_constant(self) -> bool:
        """Whether it is a number."""
        return self.head == ""

    def __iter__(self) -> Iterator["Expression"]:
        """Every node, each before its arguments, from the left."""
        yield self
        for a in self.args:
            yield from a

    @cached_property
    def text(self) -> str:
        """What the parser reads as exactly this tree."""
        if self.is_constant:
            return repr(self.value)
        if not self.args:
            return self.head
        row = PRIMITIVES[self.head]
        if not row.symbol:
            return f"{self.head}({', '.join(a.text for a in self.args)})"
        if self.head == "neg":
            # -2.0 is a constant; the negative of the constant 2.0 is -(2.0).
            inner = self.args[0]
            bare = inner._level >= _LEVELS["neg"] and not (inner.is_constant and inner.value >= 0)
            return f"-{inner.text}" if bare else f"-({inner.text})"
        left, right = (
            f"({a.text})" if a._level < n else a.text
            for a, n in zip(self.args, self._needs, strict=True)
        )
        return f"{left} {row.symbol} {right}"

    @property
    def _level(self) -> int:
        if self.is_constant:
            return _ATOM if self.value >= 0 else _LEVELS["neg"]
        return _LEVELS.get(self.head, _ATOM)

    @property
    def _needs(self) -> tuple[int, int]:
        """How tightly each side of this operator must bind to go without brackets."""
        if self.head == "pow":
            # A power groups to the right, and a signed base needs brackets.
            return _ATOM, _LEVELS["neg"]
        # The others group from the left: an equal level on the right needs brackets.
        return _LEVELS[self.head], _LEVELS[self.head] + 1

    def latex(self) -> str:
        """The formula in LaTeX, without dollar signs."""
        if self.is_constant:
            return _number(self.value)
        if not self.args:
            return _LATEX[self.head]
        parts = [a.latex() for a in self.args]
        if self.head in _LEVELS and self.head != "div":
            needs = (4,) if self.head == "neg" else self._needs
            parts = [
                p if a._latex_level >= n else rf"\left({p}\right)"
                for p, a, n in zip(parts, self.args, needs, strict=True)
            ]
            # An exponent is raised, and so needs no brackets.
            parts[1:] = [self.args[1].latex()] if self.head == "pow" else parts[1:]
        return re.sub("#([123])", lambda m: parts[int(m[1]) - 1], PRIMITIVES[self.head].latex)

    @property
    def _latex_level(self) -> int:
        # Printed as a product with a power of ten, it needs the brackets of a product.
        if self.is_constant and "e" in repr(self.value):
            return min(_LEVELS["mul"], self._level)
        return _COMPOUND.get(self.head, _LEVELS["mul"] if self.head == "div" else self._level)

    def to_sympy(self) -> Any:
        """The same formula for sympy.

        Its symbols y, cost and t are real, p, C, prior, count, N and past positive.
        """
        # Here, not above: sympy takes long to import, and few need it.
        import sympy  # type: ignore[import-untyped]

        known = {
            "y": sympy.Symbol("y", real=True),
            "p": sympy.Symbol("p", positive=True),
            "C": sympy.Symbol("C", positive=True),
            "prior": sympy.Symbol("prior", positive=True),
            "count": sympy.Symbol("count", positive=True),
            "cost": sympy.Symbol("cost", real=True),
            "t": sympy.Symbol("t", real=True),
            "past": sympy.Symbol("past", positive=True),
        }
        known["logp"] = sympy.log(known["p"])
        known["logprior"] = sympy.log(known["C"] * known["prior"])
        known["logn"] = sympy.log(sympy.Symbol("N", positive=True))

        def walk(e: Expression) -> Any:
            if e.is_constant:
                return sympy.Float(e.value)
            if not e.args:
                return known[e.head]
            return PRIMITIVES[e.head].sympy(sympy, *[walk(a) for a in e.args])

        return walk(self)


def _number(value: float) -> str:
    mantissa, _, exponent = repr(value).partition("e")
    mantissa = mantissa.removesuffix(".0")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa


def constant(value: float | int) -> Expression:
    """A number as a tree."""
    return Expression("", value=float(value))


ZERO = constant(0)
ONE = constant(1)


def call(name: str, *args: Expression) -> Expression:
    """A primitive of these trees.

    Raises:
        ValueError: it takes another number of arguments.
    """
    if len(args) != PRIMITIVES[name].arity:
        raise ValueError(f"{name} takes {PRIMITIVES[name].arity} arguments, got {len(args)}")
    return Expression(name, args)


C, Y, P, LOGP, PRIOR, LOGPRIOR, COUNT, COST, T, LOGN, PAST = (
    Expression(name) for name in TERMINALS
)
