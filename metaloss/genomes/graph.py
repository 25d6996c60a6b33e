"""Loss functions as small graphs: the search space of Morgan 2024, with the probabilities of its
code.

Four inputs, four hidden nodes and a root, each node an operation of one or two others. A node that
the root does not depend on is inactive: it is kept, and may be connected again. A factor before the
whole is ours: graphs have no constants, and at one learning rate a loss is no better than its
scale.
"""

from collections.abc import Mapping
from random import Random
from typing import Annotated, Any, ClassVar, Self

from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.genomes import _graph_variation as variation
from metaloss.genomes._clock import SeesClock
from metaloss.genomes._filters import Filters
from metaloss.genomes._graph_encoding import encode
from metaloss.genomes._graph_nodes import (
    CLOCK_PLACES,
    PAST_PLACE,
    PLACES,
    AdjustedGraphs,
    Graphs,
    Row,
    decode,
)
from metaloss.genomes._prior import SeesPrior, drawn_genes, moved_genes
from metaloss.genomes._symbolic import RANDOM, Symbolic, parts, seed
from metaloss.losses.language.expression import Expression
from metaloss.losses.language.formula import Formula

__all__ = ["Graph"]

Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]

RESCALED = 0.2  # of the children (ours)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Graph(SeesClock, SeesPrior, Symbolic):
    """Where the search starts and what it leaves out; all else but the factor is as published.

    With `prior` a graph has two numbers beside its nodes. With `clock` its nodes may read `t` and
    `logn`, too.

    Attributes:
        filters: which candidates are not worth a training. A curve may span more than a tree's: a
            pole, as Baikal has, is the way to something steep that graphs have, and the factor
            makes up for it.
        scales: the factors there are; 1 alone gives the published space.
    """

    filters: Filters = Field(default_factory=lambda: Filters(span=(1e-4, 1e8)))
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    usual: ClassVar[Mapping[str, Any]] = {
        "strategy": {"kind": "regularized"},
        "generations": 200,
        "tasks_per_generation": 16,
    }
    populations: ClassVar[tuple[type, ...]] = (Graphs, AdjustedGraphs)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in parts(self.start):
            if name != RANDOM:
                encode(seed(name), name)
        return self

    def sample(self, n: int, key: Stream) -> Graphs:
        """The losses that `start` names, then random graphs.

        Mutants of the losses, where `start` asks for no random ones.
        """
        seeds = [encode(e).rows()[0] for e in self.seeds]
        graphs = self.started(seeds, n, key, lambda _, rng: self._random(rng), self._mutant)
        return self._beside(Graphs.of(graphs), drawn_genes(n, key) if self.prior else None)

    def mutate(self, parents: Graphs, strength: Float[Tensor, "P ..."], key: Stream) -> Graphs:
        """Children that differ in one active node or in the factor; there is no strength to it."""
        rows = [self._mutant(row, key.at(i).python_rng()) for i, row in enumerate(parents.rows())]
        genes = moved_genes(self._genes(parents), key) if self.prior else None
        return self._beside(Graphs.of(rows), genes)

    def crossover(self, a: Graphs, b: Graphs, key: Stream) -> Graphs:
        """Children that take each node, and the factor, from either parent.

        The operator is ours: none was published.
        """
        pairs = zip(a.rows(), b.rows(), strict=True)
        rows = [
            variation.cross(one, other, key.at(i).python_rng())
            for i, (one, other) in enumerate(pairs)
        ]
        genes = (self._genes(a) + self._genes(b)) / 2 if self.prior else None
        return self._beside(Graphs.of(rows), genes)

    def formulas(self, population: Graphs) -> tuple[Formula, ...]:
        """The candidates as losses, the right way up, with the shift and weights of `prior`."""
        return self.adjusted_formulas(super().formulas(population), self._genes(population))

    def expressions(self, population: Graphs) -> list[Expression]:
        """What the graphs compute."""
        return [decode(*row) for row in population.rows()]

    def _beside(self, graphs: Graphs, genes: Float[Tensor, "P 2"] | None) -> Graphs:
        """The graphs with genes beside them, where there are any."""
        if genes is None:
            return graphs
        return AdjustedGraphs(graphs.operation, graphs.arguments, graphs.scale, genes)

    def _genes(self, population: Graphs) -> Float[Tensor, "P G"]:
        """What stands beside the graphs: those of the start where nothing does."""
        if isinstance(population, AdjustedGraphs):
            return population.adjustment
        return population.scale.new_zeros(len(population), self.prior_genes)

    def _random(self, rng: Random) -> Row:
        return variation.random_graph(rng, self._places), rng.choice(self.scales)

    @property
    def _places(self) -> variation.Places:
        """What a node may read."""
        return (
            *PLACES,
            *(CLOCK_PLACES if self.clock else ()),
            *((PAST_PLACE,) if self.past else ()),
        )

    def _mutant(self, parent: Row, rng: Random) -> Row:
        nodes, scale = parent
        others = [x for x in self.scales if x != scale]
        if others and rng.random() < RESCALED:
            return nodes, rng.choice(others)
        return variation.mutate(nodes, rng, self._places), scale
