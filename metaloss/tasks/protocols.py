"""What task families need of others: an engine that trains, and the size of a search."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.data.datasets._files import Files
from metaloss.data.episodes import Pool, Tasks
from metaloss.inner.loop import Inner
from metaloss.inner.observers import Observer
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set that a family has its images from.

    Attributes:
        dataset: the images.
        pools: their rows of every class, by the pool's name.
    """

    dataset: Dataset | Files
    pools: Mapping[str, Pool]

    def rows(self, pool: str) -> Int64[Tensor, " N"]:
        """The rows of a pool's images."""
        return torch.cat(self.pools[pool])


@dataclass(frozen=True)
class EpisodeTrainings:
    """Populations of losses that are to train the classifiers of the same tasks of one family.

    Attributes:
        populations: of P losses each.
        episodes: the family with its images.
        tasks: T of them.
        keys: one per task, for the initial weights and the batches.
        metric: what is measured of the trained classifiers.
        inner: how they train.
        rates: of each population a learning rate for all, or one per loss; the family's own where
            None.
        steps: the M numbers of steps after which it is measured, ascending.
    """

    populations: Sequence[Losses]
    episodes: Any
    tasks: Tasks
    keys: Sequence[Stream]
    metric: Observer
    inner: Inner
    rates: Sequence[Rate | None]
    steps: tuple[int, ...]


class SeparateTrainings(Protocol):
    """Trainings that do not share a loop, each a job for a process that has their images open."""

    @property
    def workers(self) -> int:
        """How many run at once on one machine."""

    @property
    def opener(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What opens them in another process, where it has a method `attempt(job, stop)`, and its
        arguments.
        """

    @property
    def fingerprint(self) -> str:
        """The digest of the images, which must be the same everywhere."""

    def attempts(
        self, jobs: Sequence[Any], stop: Callable[[], bool], /
    ) -> Iterator[tuple[Any, Any]]:
        """Every job with its result, as it ends, on this machine."""


class Engine(Protocol):
    """Trains classifiers; `metaloss.engines.opening.open_engine` makes one.

    All engines give the same bits: how trainings are cut follows from settings and memory alone.
    """

    memory: int  # bytes that trainings may take
    halvings: int  # how often a chunk ran out of memory

    @property
    def device(self) -> torch.device:
        """Where trainings run, and images lie."""

    @property
    def stop(self) -> Callable[[], bool]:
        """Asked again and again; True drops the work."""

    @property
    def on_progress(self) -> Callable[[int], None]:
        """Is told of the steps of every chunk."""

    @property
    def workers(self) -> int:
        """Trainings at once."""

    @property
    def description(self) -> str:
        """Where it trains, in a few words."""

    @property
    def provenance(self) -> dict[str, str]:
        """What a run's folder keeps of it."""

    def plan(self, episodes: Any, inner: Inner, candidates: int, tasks: int, /) -> Any:
        """How so many trainings are cut into chunks."""

    def score(
        self, losses: Losses, episodes: Any, tasks: Tasks, keys: Sequence[Stream], /
    ) -> Tensor:
        """Validation accuracies of losses on tasks [P T], NaN where a training failed."""

    def curve(
        self, losses: Losses, episodes: Any, tasks: Tasks, keys: Sequence[Stream], /
    ) -> Tensor:
        """The same after M numbers of steps [M P T]."""

    def observe(
        self,
        many: Sequence[Losses],
        episodes: Any,
        tasks: Tasks,
        keys: Sequence[Stream],
        metric: Observer,
        /,
    ) -> list[Tensor]:
        """What a metric shows of each of many populations [M P T ...]."""

    def observe_each(self, trainings: Sequence[EpisodeTrainings], /) -> list[list[Tensor]]:
        """What is measured of the populations of each of several [M P T ...], all at once."""

    def attempts(
        self, trainings: SeparateTrainings, jobs: Sequence[Any], /
    ) -> Iterator[tuple[Any, Any]]:
        """Every job of some trainings with its result, as it ends."""

    def attempts_at_once(self, trainings: SeparateTrainings, /) -> int:
        """How many of some trainings run at once."""

    def map(self, f: Callable[[Any], Any], jobs: Sequence[Any], /) -> list[Any]:
        """What a function gives for each of some jobs, on threads of this process."""


class ElectionRound(NamedTuple):
    """A round of the choice of a winner.

    Attributes:
        losses: how many take part.
        first: the number of the first task that they meet.
        end: that of the last one, and one more.
    """

    losses: int
    first: int
    end: int


@dataclass(frozen=True)
class SearchBudget:
    """How much a search trains, as far as its cost depends on it.

    Attributes:
        candidates: losses of all generations together, by how many tasks of every family they meet.
        validation: images per class that a generation's tasks are validated on.
        rates: learning rates among which cross-entropy's is chosen.
        baseline_tasks: tasks to choose it on.
        election: the rounds in which the winner is chosen.
        test_tasks: tasks of the test.
        reports: how often the best loss so far is scored on held-out tasks.
    """

    candidates: Mapping[int, int]
    validation: int
    rates: tuple[float, ...]
    baseline_tasks: int
    election: tuple[ElectionRound, ...]
    test_tasks: int
    reports: int

    @property
    def tasks(self) -> int:
        """Of the smallest generation, for every family."""
        return min(self.candidates)

    def candidate_trainings(self, most: Callable[[int], int] = int) -> int:
        """How many trainings the candidates of all generations have.

        Args:
            most: how many tasks a family has where so many are asked for.
        """
        return sum(losses * most(tasks) for tasks, losses in self.candidates.items())

    def election_trainings(self, most: Callable[[int], int] = int) -> int:
        """How many trainings choose the winner.

        Args:
            most: how many tasks a family has where so many are asked for.
        """
        return sum(x.losses * (most(x.end) - most(x.first)) for x in self.election)


@dataclass(frozen=True)
class FamilyCost:
    """What one task family adds to a search's cost.

    Attributes:
        trainings: of candidates, in all generations.
        seconds: of everything, tuning and test included.
    """

    trainings: int
    seconds: float
