"""One form for expressions that are the same up to order and signs: what is stored, compared and
hashed.

Only what changes neither the value nor the gradient where they are finite: sums are not regrouped
(that rounds otherwise) and x·0 stays (x may be infinite). Every tree is seen as a sign times a
core; the core is the same for e and -e. No tree grows.
"""

import hashlib
import math
from functools import lru_cache

import torch

from metaloss.losses.language.expression import (
    LOGP,
    ONE,
    TERMINALS,
    ZERO,
    Expression,
    P,
    call,
    constant,
)
from metaloss.losses.language.primitives import PRIMITIVES

Signed = tuple[int, Expression]
_TWO = constant(2)
_SYMMETRIC = ("max", "min")


def canonical(e: Expression) -> Expression:
    """The canonical form of an expression.

    Expressions that differ only in order, signs and folded constants share it.
    """
    return _attach(*_split(e))


def digest(e: Expression) -> str:
    """A hash of the canonical text."""
    return fingerprint(canonical(e).text)


def fingerprint(text: str) -> str:
    """32 hexadecimal digits that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _attach(sign: int, core: Expression) -> Expression:
    """sign · core, the sign where it costs no node, or else as far to the left as it goes."""
    if sign > 0:
        return core
    if core.is_constant:
        return constant(-core.value)
    if core.head == "sub":
        return call("sub", core.args[1], core.args[0])
    if not _absorbs(core) and core.head not in ("mul", "div"):
        return call("neg", core)
    first, *others = core.args
    if others and not _absorbs(first) and _absorbs(others[0]):
        other = _attach(-1, others[0])
        return call("sub", other, first) if core.head == "add" else call(core.head, first, other)
    return call("sub" if core.head == "add" else core.head, _attach(-1, first), *others)


def _absorbs(core: Expression) -> bool:
    """Whether a sign goes in without a node more."""
    if core.is_constant or core.head == "sub":
        return True
    if core.head in ("add", "mul", "div"):
        return any(map(_absorbs, core.args))
    return bool(core.args) and PRIMITIVES[core.head].parity < 0 and _absorbs(core.args[0])


# Cached, because expressions of one search share many of their subtrees.
@lru_cache(maxsize=1 << 14)
def _split(e: Expression) -> Signed:
    if e.is_constant:
        return (1, e) if e.value >= 0 else (-1, constant(-e.value))
    if not e.args:
        return 1, e
    parts = [_split(a) for a in e.args]
    args = tuple(_attach(*part) for part in parts)
    # A result that is not finite stays unfolded: the parser refuses such numbers.
    if all(a.is_constant for a in args) and math.isfinite(value := _fold(e.head, args)):
        return _split(constant(value))
    if e.head == "neg":
        return -parts[0][0], parts[0][1]
    if e.head in ("add", "sub"):
        sign, core = parts[1]
        return _sum(parts[0], (sign if e.head == "add" else -sign, core))
    if e.head in ("mul", "div"):
        return _product(e.head, parts)
    return _function(e.head, parts, args)


def _fold(name: str, args: tuple[Expression, ...]) -> float:
    # By the primitive itself, so that its protection against 0 holds here, too.
    numbers = [torch.tensor(a.value, dtype=torch.float64) for a in args]
    return float(PRIMITIVES[name].run(*numbers))


def _key(e: Expression) -> tuple[int, float, str]:
    """Constants first, then terminals, then what is smaller."""
    if e.is_constant:
        return 0, e.value, ""
    return (2, float(e.size), e.text) if e.args else (1, float(TERMINALS.index(e.head)), "")


def _sum(a: Signed, b: Signed) -> Signed:
    if b[1] == ZERO:
        return a
    if a[1] == ZERO:
        return b
    # x - x is not folded to 0: where x is infinite it is NaN.
    if a[1] == b[1] and a[0] != b[0]:
        return 1, call("sub", a[1], b[1])
    (sign, first), (other, second) = sorted((a, b), key=lambda part: _key(part[1]))
    return sign, call("add" if sign == other else "sub", first, second)


def _product(name: str, parts: list[Signed]) -> Signed:
    (sign, a), (other, b) = parts
    if name == "mul":
        a, b = sorted((a, b), key=_key)
        if a == ONE:
            return sign * other, b
    elif b == ONE:
        return sign * other, a
    return sign * other, call(name, a, b)


def _function(name: str, parts: list[Signed], args: tuple[Expression, ...]) -> Signed:
    sign = 1
    row = PRIMITIVES[name]
    if name == "pow" and args[1] in (ONE, _TWO):
        return parts[0] if args[1] == ONE else _split(call("square", args[0]))
    if row.parity:
        sign = parts[0][0] if row.parity < 0 else 1
        args = (parts[0][1], *args[1:])
        # An even function gives the same without the absolute value.
        if row.parity > 0 and args[0].head == "abs":
            args = args[0].args
    if name == "aq":
        args = (args[0], parts[1][1])  # even in its second argument
        if args[1] == ZERO:
            return sign, args[0]
    if name in _SYMMETRIC:
        if args[0] == args[1]:
            return parts[0]
        args = tuple(sorted(args, key=_key))
    # The engine computes p as exp(logp): it is the same number.
    if name == "exp" and args[0] == LOGP:
        return 1, P
    return sign, call(name, *args)
