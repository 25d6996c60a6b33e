"""Who stands for election at the end of a search; of formulas also the front of score and size."""

import math
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from metaloss.core.metric_scale import ACCURACY, MetricScale
from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.genomes import FormulaSpace, Genome
from metaloss.losses.base import Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.run_folder import Progress
from metaloss.search.trained_losses import TrainedLosses

OF_SEARCH = 20  # the best formulas of the whole search that stand


@dataclass(frozen=True)
class Finalists:
    """Those that stand for election, and where each comes from."""

    genome: Genome
    population: Population
    # Of what is made of formulas; then the population is of no account.
    formulas: tuple[Formula, ...]
    origins: list[str]

    @property
    def losses(self) -> Losses:
        """All of them, side by side."""
        return Formulas.of(self.formulas) if self.formulas else self.genome.losses(self.population)

    def criterion(
        self, row: int, about: dict[str, Any], steps: int, normalise: bool = False
    ) -> Criterion:
        """One of them, to train with.

        Args:
            row: which.
            about: what its file says of it.
            steps: of a training, for one that reads the clock.
            normalise: whether it is divided by its gain.
        """
        loss: Criterion = (
            FormulaCriterion(self.formulas[row], about)
            if self.formulas
            else GenomeCriterion(self.genome, self.population[row : row + 1], about)
        )
        return loss.with_options(steps=steps if loss.reads_clock else None, normalise=normalise)


def original_of(genome: Genome) -> Population | None:
    """The loss that a search sets out from and has to beat; None: there is none."""
    return genome.sample(1, Stream(0)) if getattr(genome, "first", ()) else None


def without_first(genome: Any) -> Any:
    """The genome as it describes its losses, whichever of them a search set out from."""
    return replace(genome, first=()) if getattr(genome, "first", ()) else genome


def choose_finalists(
    genome: Genome, progress: Progress, trained_losses: TrainedLosses | None
) -> Finalists:
    """The last generations' best, the population's centre, and of formulas the best of the search
    and of each size.

    What the search set out from comes first, so that nothing replaces it that is no better.
    """
    # A mean over generations has less of the noise that each one's tasks brought in.
    population = progress.finalists.cat(progress.mean_candidates[-1:]).cat(
        progress.mean_candidates.mean_candidate()
    )
    first = progress.generation - len(progress.finalists) + 1
    names = [f"best of generation {first + i}" for i in range(len(progress.finalists))]
    origins = [
        *names,
        "the population's centre",
        f"the mean of the last {len(progress.mean_candidates)} centres",
    ]
    if not isinstance(genome, FormulaSpace):
        if original := original_of(genome):
            population, origins = original.cat(population), ["the original", *origins]
        return Finalists(without_first(genome), population, (), origins)
    # The original stands first: of equal scores the first one wins.
    origin_of = dict.fromkeys(genome.originals, "the original")
    if trained_losses is not None:
        origin_of |= {
            f.canonical(): f"best of its size, {f.expression.size} nodes"
            for f in trained_losses.best_of_each_size()
        }
        origin_of |= {
            f.canonical(): "among the best of the search" for f in trained_losses.best(OF_SEARCH)
        }
    # A formula that stands already keeps its place, only the words for its origin change.
    last = zip(genome.formulas(population), origins, strict=True)
    origin_of |= {
        f.canonical(): origin for f, origin in last if f.canonical() not in genome.originals
    }
    return Finalists(genome, population, tuple(origin_of), list(origin_of.values()))


def size_front(
    finalists: Finalists,
    reached: Float[Tensor, " F"],
    scale: MetricScale = ACCURACY,
    outside: Bool[Tensor, " F"] | None = None,
) -> list[dict[str, Any]]:
    """The formulas that no smaller one reaches, the smallest first.

    Args:
        finalists: formulas.
        reached: the score of each, on the same tasks.
        scale: how scores are shown.
        outside: which of them lie outside a guard, and are left out unless all do.
    """
    kept = list(range(len(finalists.formulas)))
    if outside is not None and not outside.all():
        kept = [i for i in kept if not outside[i]]
    # Of one size the best comes first, so that no other of that size is taken.
    rows = sorted(
        kept,
        key=lambda i: (finalists.formulas[i].expression.size, -reached[i]),
    )
    front: list[dict[str, Any]] = []
    highest = -math.inf
    for i in rows:
        score = float(reached[i])
        if score > highest:
            highest = score
            formula = finalists.formulas[i]
            row = {"size": formula.expression.size, scale.kind: scale.value(score)}
            front.append({**row, "formula": str(formula), "latex": formula.latex()})
    return front
