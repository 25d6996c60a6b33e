"""What task families need of others: an engine that trains, and the size of a search."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.loop import Inner
from metaloss.inner.observers import Observer
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses


class Engine(Protocol):
    """Trains the classifiers of episodes; `metaloss.engines.local.Local` is one."""

    @property
    def stop(self) -> Callable[[], bool]:
        """Asked again and again; True drops the work."""

    @property
    def workers(self) -> int:
        """Trainings at once."""

    def score(
        self, losses: Losses, episodes: Any, tasks: Tasks, keys: Sequence[Stream], /
    ) -> Tensor:
        """Validation accuracies of losses on tasks [P T], NaN where a training failed."""

    def observe(
        self,
        populations: Sequence[Losses],
        episodes: Any,
        tasks: Tasks,
        keys: Sequence[Stream],
        metric: Observer,
        inner: Inner,
        rates: Sequence[Rate | None],
        steps: tuple[int, ...],
        /,
    ) -> list[Tensor]:
        """What a metric says of each population after M numbers of steps [M P T ...]."""


@dataclass(frozen=True)
class SearchBudget:
    """How much a search trains, as far as its cost depends on it.

    Attributes:
        candidates: losses of all generations together.
        tasks: of a generation, for every family.
        validation: images per class that a generation's tasks are validated on.
        rates: learning rates among which cross-entropy's is chosen.
        baseline_tasks: tasks to choose it on.
        finalists: losses among which the winner is chosen.
        winner_tasks: tasks to choose it on.
        test_tasks: tasks of the test.
        reports: how often the best loss so far is scored on held-out tasks.
    """

    candidates: int
    tasks: int
    validation: int
    rates: tuple[float, ...]
    baseline_tasks: int
    finalists: int
    winner_tasks: int
    test_tasks: int
    reports: int


@dataclass(frozen=True)
class FamilyCost:
    """What one task family adds to a search's cost.

    Attributes:
        trainings: of candidates, in all generations.
        seconds: of everything, tuning and test included.
    """

    trainings: int
    seconds: float
