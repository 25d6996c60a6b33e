"""Expression trees, varied by genetic programming (Koza 1992; limits as in Next Generation Loss
2024).

That paper prints no functions, terminals or probabilities: those here are ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor
from torch.nn import functional as F

from metaloss.core import registry
from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes._clock import SeesClock
from metaloss.genomes._prior import GENES, SeesPrior, drawn_genes, moved_genes
from metaloss.genomes._symbolic import Symbolic
from metaloss.losses.language.expression import PAST, Expression, Y, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import PRIMITIVES

__all__ = ["Tree"]

FUNCTIONS = (
    "add",
    "sub",
    "mul",
    "aq",
    "max",
    "min",
    "exp",
    "log_clamp",
    "square",
    "sqrt_clamp",
    "abs",
    "tanh",
    "sigmoid",
)
# Symbol k stands for HEADS[k - 1], 0 for nothing. Runs keep the numbers: what is new stands last.
HEADS = (
    "",
    "C",
    "y",
    "p",
    "logp",
    *PRIMITIVES,
    "prior",
    "logprior",
    "count",
    "cost",
    "t",
    "logn",
    "past",
)
CLOCK = ("t", "logn")
SYMBOLS = {head: k for k, head in enumerate(HEADS, start=1)}
TRIES = 50

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Trees(Population):
    """Expressions in prefix order.

    Symbols, 0 behind the last one, and the values of those symbols that are constants.
    """

    symbols: Int[Tensor, "P L"]
    values: Float[Tensor, "P L"]

    @property
    def sizes(self) -> Int[Tensor, " P"]:
        """How many nodes."""
        return (self.symbols > 0).sum(1)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Tree(SeesClock, SeesPrior, Symbolic):
    """What trees are made of, how large they are, and how they vary.

    With `prior` the numbers for it stand behind a tree's constants, where no symbol is. With
    `clock` leaves may be `t` and `logn`, too, with `past` the terminal `past`.

    Attributes:
        functions: primitives of the inner nodes (metaloss list primitives).
        terminals: of the leaves, beside constants.
        constants: the share of leaves that are constants, drawn from a normal distribution.
        min_height: of any tree, in steps from the root to the deepest leaf.
        first_height: the greatest of a random tree; they are ramped half-and-half from `min_height`
            on.
        max_height: of any tree.
        max_size: nodes of any tree.
        subtree: how often a mutation puts a fresh subtree in the place of another, relative to the
            other kinds.
        point: how often it changes one node's function or leaf.
        insert: how often it puts a function between a node and its parent.
        shift: how often it moves the constants.
        step: a shifted constant's standard deviation, relative to its size plus 0.1.
    """

    functions: Annotated[tuple[str, ...], Field(min_length=1)] = FUNCTIONS
    terminals: Annotated[
        tuple[Literal["y", "p", "logp", "C", "prior", "logprior", "cost"], ...],
        Field(min_length=2),
    ] = ("y", "p", "logp")
    constants: Annotated[float, Field(ge=0, lt=1)] = 0.25
    min_height: Annotated[int, Field(ge=1, le=10)] = 2
    first_height: Annotated[int, Field(ge=1, le=10)] = 4
    max_height: Annotated[int, Field(ge=1, le=60)] = 10
    max_size: Annotated[int, Field(ge=3, le=500)] = 100
    subtree: Share = 0.3
    point: Share = 0.2
    insert: Share = 0.2
    shift: Share = 0.3
    step: Annotated[float, Field(gt=0, le=10)] = 0.3

    usual: ClassVar[Mapping[str, Any]] = {"strategy": {"kind": "gp"}, "generations": 120}
    populations: ClassVar[tuple[type, ...]] = (Trees,)

    @field_validator("functions")
    @classmethod
    def _primitives(cls, functions: tuple[str, ...]) -> tuple[str, ...]:
        for name in functions:
            if name not in PRIMITIVES:
                raise SettingsError(
                    registry.unknown_message(
                        "primitive", name, PRIMITIVES, "metaloss list primitives"
                    )
                )
        return functions

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.min_height <= self.first_height <= self.max_height:
            raise ValueError("needs min_height <= first_height <= max_height")
        if "y" not in self.terminals or {"p", "logp"}.isdisjoint(self.terminals):
            raise ValueError("terminals must hold y, and p or logp")
        if not any(PRIMITIVES[name].arity == 2 for name in self.functions):
            raise ValueError(
                "functions must hold one of two arguments, or no tree could read y and a prediction"
            )
        if self._smallest.size > self.max_size:
            raise ValueError(
                f"max_size must be at least {self._smallest.size} "
                f"for trees of height {self.min_height}"
            )
        if not self.subtree + self.point + self.insert + self.shift:
            raise ValueError("one of subtree, point, insert and shift must be above 0")
        for e in self.seeds:
            if e.size > self.max_size or e.height > self.max_height:
                raise ValueError(
                    f"start: {e} has {e.size} nodes and height {e.height}, more than trees may have"
                )
        return self

    def sample(self, n: int, key: Stream) -> Trees:
        """The losses that `start` names, then random trees.

        Mutants of the losses, where "random" is not among them.
        """
        trees = self.started(self.seeds, n, key, self._random, self._mutant)
        return self._rows(trees, drawn_genes(n, key) if self.prior else None)

    def mutate(self, parents: Trees, strength: Float[Tensor, "P ..."], key: Stream) -> Trees:
        """One child of each parent, by one of the four mutations; no use is made of a strength."""
        trees = self.expressions(parents)
        children = [self._mutant(e, key.at(i).python_rng()) for i, e in enumerate(trees)]
        genes = moved_genes(parents.values[:, -GENES:], key) if self.prior else None
        return self._rows(children, genes)

    def crossover(self, a: Trees, b: Trees, key: Stream) -> Trees:
        """Each tree of `a`, with one subtree taken from the tree of `b` in the same row."""
        pairs = zip(self.expressions(a), self.expressions(b), strict=True)

        def child(one: Expression, other: Expression, rng: Random) -> Expression:
            return self._retried(
                one, lambda: replaced(one, rng.randrange(one.size), rng.choice(list(other)))
            )

        children = [child(x, other, key.at(i).python_rng()) for i, (x, other) in enumerate(pairs)]
        genes = (a.values[:, -GENES:] + b.values[:, -GENES:]) / 2 if self.prior else None
        return self._rows(children, genes)

    def expressions(self, population: Trees) -> list[Expression]:
        """The trees."""
        rows = zip(population.symbols.tolist(), population.values.tolist(), strict=True)
        return [_decoded(tuple(symbols), tuple(values)) for symbols, values in rows]

    def formulas(self, population: Trees) -> tuple[Formula, ...]:
        """The candidates as losses, the right way up, with the shift and weights of `prior`."""
        return self.adjusted_formulas(super().formulas(population), population.values)

    def _rows(
        self, expressions: list[Expression], genes: Float[Tensor, "P 2"] | None = None
    ) -> Trees:
        nodes = [list(e) for e in expressions]
        shape = (len(expressions), self.max_size)
        empty = [[0] * (self.max_size - len(row)) for row in nodes]
        symbols = [
            [*(SYMBOLS[node.head] for node in row), *rest]
            for row, rest in zip(nodes, empty, strict=True)
        ]
        values = [
            [*(node.value for node in row), *rest] for row, rest in zip(nodes, empty, strict=True)
        ]
        trees = Trees(
            # Reshaped, because no expressions at all would give a tensor with one axis.
            torch.tensor(symbols, dtype=torch.int16).reshape(shape),
            # float64: a constant must print as it did before.
            torch.tensor(values, dtype=torch.float64).reshape(shape),
        )
        if not self.prior:
            return trees
        genes = trees.values.new_zeros(len(expressions), GENES) if genes is None else genes
        return Trees(F.pad(trees.symbols, (0, GENES)), torch.cat([trees.values, genes], 1))

    @property
    def _smallest(self) -> Expression:
        """A tree that always fits the limits.

        y and a prediction under one function, and as many functions above as the height asks for.
        """
        both = next(name for name in self.functions if PRIMITIVES[name].arity == 2)
        above = min(self.functions, key=lambda name: PRIMITIVES[name].arity)
        e = call(
            both, Y, Expression(next(name for name in self.terminals if name in ("p", "logp")))
        )
        while e.height < self.min_height:
            e = call(above, e, *[Y] * (PRIMITIVES[above].arity - 1))
        return e

    def _random(self, row: int, rng: Random) -> Expression:
        """Ramped half-and-half: heights in turn, every other tree full."""
        span = self.first_height - self.min_height + 1
        height = self.min_height + row // 2 % span
        full = row % 2 == 0
        return self._retried(self._smallest, lambda: self._grown(height, rng, full))

    def _mutant(self, e: Expression, rng: Random) -> Expression:
        return self._retried(e, lambda: self._mutated(e, rng))

    def _retried(self, otherwise: Expression, draw: Callable[[], Expression]) -> Expression:
        """The first tree drawn that fits, or what there is otherwise."""
        for _ in range(TRIES):
            if self._may_be(e := draw()):
                return e
        return otherwise

    def _may_be(self, e: Expression) -> bool:
        tall = self.min_height <= e.height <= self.max_height
        return tall and e.size <= self.max_size and e.reads_label and e.varies

    def _grown(self, height: int, rng: Random, full: bool = False) -> Expression:
        """A random tree of at most this height; of just this height everywhere if full."""
        leaves = len(self._leaves) + 1
        functions = len(self.functions)
        # Functions and leaves are drawn from one set, so a leaf comes as often as its share in it.
        if height == 0 or (not full and rng.random() < leaves / (leaves + functions)):
            return self._leaf(rng)
        name = rng.choice(self.functions)
        return call(
            name, *(self._grown(height - 1, rng, full) for _ in range(PRIMITIVES[name].arity))
        )

    def _leaf(self, rng: Random) -> Expression:
        if rng.random() < self.constants:
            # Few digits, so that formulas stay short.
            return constant(round(rng.gauss(0, 1), 3))
        return Expression(rng.choice(self._leaves))

    @property
    def _leaves(self) -> tuple[str, ...]:
        """The terminals that leaves may be."""
        clock = CLOCK if self.clock else ()
        return (*self.terminals, *clock, *((PAST.head,) if self.past else ()))

    def _mutated(self, e: Expression, rng: Random) -> Expression:
        kinds = {
            self._regrown: self.subtree,
            self._changed: self.point,
            self._inserted: self.insert,
            self._shifted: self.shift,
        }
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
        return kind(e, rng)

    def _regrown(self, e: Expression, rng: Random) -> Expression:
        return replaced(e, rng.randrange(e.size), self._grown(2, rng))

    def _changed(self, e: Expression, rng: Random) -> Expression:
        place = rng.randrange(e.size)
        node = list(e)[place]
        if not node.args:
            return replaced(e, place, self._leaf(rng))
        alike = [
            f for f in self.functions if PRIMITIVES[f].arity == len(node.args) and f != node.head
        ]
        return replaced(e, place, call(rng.choice(alike), *node.args)) if alike else e

    def _inserted(self, e: Expression, rng: Random) -> Expression:
        place = rng.randrange(e.size)
        name = rng.choice(self.functions)
        args = [self._leaf(rng) for _ in range(PRIMITIVES[name].arity)]
        args[rng.randrange(len(args))] = list(e)[place]
        return replaced(e, place, call(name, *args))

    def _shifted(self, e: Expression, rng: Random) -> Expression:
        """All constants moved; where there are none, one node changed."""
        places = [i for i, node in enumerate(e) if node.is_constant]
        if not places:
            return self._changed(e, rng)
        for place in places:
            value = list(e)[place].value
            moved = value + rng.gauss(0, self.step) * (abs(value) + 0.1)
            e = replaced(e, place, constant(float(f"{moved:.4g}")))
        return e


def replaced(e: Expression, place: int, by: Expression) -> Expression:
    """The tree with another one in the place of its node of that number, in prefix order."""
    if place == 0:
        return by
    args = list(e.args)
    place = place - 1
    for i, a in enumerate(args):
        if place < a.size:
            args[i] = replaced(a, place, by)
            break
        place -= a.size
    return Expression(e.head, tuple(args), e.value)


# What a child shares with its parent is looked at once.
_node = lru_cache(maxsize=1 << 13)(Expression)


@lru_cache(maxsize=1 << 11)
def _decoded(symbols: tuple[int, ...], values: tuple[float, ...]) -> Expression:
    def read(place: int) -> tuple[Expression, int]:
        """The tree that begins here, and the place behind it."""
        head = HEADS[symbols[place] - 1]
        value = values[place]
        args = []
        place = place + 1
        for _ in range(PRIMITIVES[head].arity if head in PRIMITIVES else 0):
            a, place = read(place)
            args.append(a)
        return _node(head, tuple(args), value), place

    return read(0)[0]
