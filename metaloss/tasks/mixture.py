"""A mixture as tasks: each is of one of many kinds, and a kind is a family of episodes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.metric_scale import MetricScale
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.inner.metrics import Metric
from metaloss.inner.observers import Observer
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.episode_costs import search_cost, seconds_each
from metaloss.tasks.episodic import Episodes
from metaloss.tasks.mixture_family import MixtureFamily
from metaloss.tasks.mixture_kinds import cost, order_of_kinds
from metaloss.tasks.protocols import Engine, FamilyCost, ImageSet, SearchBudget

# How many times cross-entropy's best rate of each kind a loss's rate may be, where it is tuned.
FACTORS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
TIMED_KINDS = 16  # that an estimate is timed on


@dataclass(frozen=True)
class References:
    """What cross-entropy is worth at each of K kinds of tasks.

    Attributes:
        rates: its best learning rates.
        spreads: what a difference of scores is measured by, the kind's own unit
            (`metaloss.evaluation.tuning.spread`).
    """

    rates: tuple[float, ...]
    spreads: tuple[float, ...]


@dataclass(frozen=True)
class Mixture:
    """A mixture with its images on the device.

    Tasks of a kind train as those of an ordinary family do. Rates are in units of cross-entropy's
    best one at each kind, and numbers of steps in units of each kind's own.

    Attributes:
        family: its settings.
        sets: its data sets, each as a family of episodes whose tasks are of no account.
        kinds: a family of episodes for each kind.
        factors: how many times cross-entropy's best rate the tasks of each kind train with; None:
            with the kind's own.
        absent: the names of the data sets that are not here.
        references: cross-entropy's best rates; None where they are not known yet, and then kinds
            train with what the factors make of a usual one.
    """

    family: MixtureFamily
    sets: tuple[Episodes, ...]
    kinds: tuple[Episodes, ...]
    factors: tuple[float | None, ...]
    absent: tuple[str, ...] = ()
    references: References | None = None

    @property
    def kind_count(self) -> int:
        """How many kinds there are."""
        return len(self.kinds)

    def kinds_of(self, key: Stream, tasks: Sequence[int]) -> Int[Tensor, " T"]:
        """The number of each task's kind.

        Args:
            key: of the tasks, as in `evaluate`.
            tasks: the numbers of the tasks that the key draws.
        """
        order = order_of_kinds(self._costs, key.at("kinds"))
        return order[torch.tensor(list(tasks)) // self.family.tasks_per_kind % self.kind_count]

    @cached_property
    def _costs(self) -> list[int]:
        """What a training of each kind costs, to order them by."""
        return [cost(kind.family, kind.images.shape) for kind in self.kinds]

    def with_references(self, references: References) -> Self:
        """The mixture whose kinds train with their factors of cross-entropy's best rates."""
        rates = zip(self.factors, references.rates, strict=True)
        kinds = [
            kind if factor is None else _at_rate(kind, factor * rate)
            for kind, (factor, rate) in zip(self.kinds, rates, strict=True)
        ]
        return replace(self, kinds=tuple(kinds), references=references)

    def episodes_of(self, key: Stream, tasks: Sequence[int]) -> list[tuple[Episodes, list[int]]]:
        """The tasks of each kind, with the family of episodes that they are of.

        Arguments: as for `kinds_of`.
        """
        numbers = self.kinds_of(key, tasks).tolist()
        return [
            (
                self.kinds[kind],
                [task for task, of in zip(tasks, numbers, strict=True) if of == kind],
            )
            for kind in dict.fromkeys(numbers)
        ]

    @property
    def steps(self) -> int:
        """1: each kind's own number of steps."""
        return 1

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many classes tasks have."""
        return tuple(sorted({kind.ways for kind in self.kinds}))

    def most(self, tasks: int) -> int:
        """How many tasks are drawn where so many are asked for: all of them."""
        return tasks

    def rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rates among which a loss's is chosen, as multiples of cross-entropy's best ones."""
        return FACTORS

    def baseline_rates(self, rates: Sequence[float]) -> Sequence[float]:
        """The rate at which cross-entropy is at its best: 1 time its best rate at each kind."""
        return (1.0,)

    @property
    def metric(self) -> Metric | None:
        """What losses are scored by, for the classes of the first kind; None: accuracy."""
        return self.kinds[0].metric

    @cached_property
    def scale(self) -> MetricScale:
        """How scores are shown; guesses have the mean of the kinds' values."""
        guesses = [kind.scale.guess for kind in self.kinds]
        return replace(self.kinds[0].scale, guess=sum(guesses) / len(guesses))

    @property
    def answers(self) -> None:
        """None: tasks of unlike sizes have nothing in common but their scores."""
        return

    @property
    def chance(self) -> float:
        """The score of guesses."""
        return self.scale.score(self.scale.guess)

    def measured_by(self, kind: str) -> tuple[Metric, MetricScale]:
        """A further metric, with its own defaults, for the classes of the first kind.

        Raises:
            SettingsError: it does not fit them.
        """
        return self.kinds[0].measured_by(kind)

    def evaluate(
        self,
        engine: Engine,
        populations: Sequence[Losses],
        pool: str,
        key: Stream,
        tasks: range,
        *,
        val: int | None = None,
        rates: Sequence[Rate | None] = (),
        steps: tuple[int, ...] = (),
        metric: Observer | None = None,
        beside: tuple[str, ...] = (),
    ) -> list[Float[Tensor, "1 P T ..."]]:
        """What a metric says of populations of losses on the same tasks, each after its own steps.

        Args:
            engine: trains the classifiers, those of all kinds at once.
            populations: of P losses each.
            pool: where the tasks are drawn from: "train", "validation" or "test".
            key: of the tasks and their kinds, of the initial weights and of the batches.
            tasks: the numbers of the tasks that the key draws.
            val: validation images per class; the family's own number where None.
            rates: of each population how many times cross-entropy's best rate, for all or one per
                loss; the kinds' own factors where None, and by default.
            steps: (1,) or none.
            metric: what is measured of the trained classifiers, equally many numbers for every
                kind; the family's score where None.
            beside: further metrics, in columns behind the score.

        Raises:
            SettingsError: there are other steps than the kinds' own.
            ValueError: a rate is given, and cross-entropy's best ones are not known.
        """
        if steps not in ((), (self.steps,)):
            raise SettingsError(
                f"{self.family.origin} is a mixture, whose kinds have numbers of steps of their "
                "own: none can be given"
            )

        def observer(kind: Episodes) -> Observer:
            return metric or kind.observer(beside)

        by_kind = self.by_kind(
            engine, populations, pool, key, tasks, val=val, rates=rates, metric=observer
        )
        order = torch.cat([places for _, places, _ in by_kind]).argsort()
        of_kinds = [seen for _, _, seen in by_kind]
        return [torch.cat(x, 2).index_select(2, order) for x in zip(*of_kinds, strict=True)]

    def by_kind(
        self,
        engine: Engine,
        populations: Sequence[Losses],
        pool: str,
        key: Stream,
        tasks: range,
        *,
        val: int | None = None,
        rates: Sequence[Rate | None] = (),
        metric: Callable[[Episodes], Observer],
    ) -> list[tuple[Episodes, Int[Tensor, " t"], list[Float[Tensor, "1 P t ..."]]]]:
        """Of every kind that tasks are of: itself, their places, and what a metric says there.

        Arguments: as for `evaluate`; `metric` gives what is measured of each kind.
        """
        each_rate = rates or [None] * len(populations)
        numbers = self.kinds_of(key, tasks)
        places = {
            number: (numbers == number).nonzero()[:, 0]
            for number in dict.fromkeys(numbers.tolist())
        }
        seen = engine.observe_each(
            [
                self.kinds[number].trainings(
                    populations,
                    pool,
                    key,
                    [tasks[t] for t in of_kind.tolist()],
                    metric(self.kinds[number]),
                    rates=[self._rate(number, rate) for rate in each_rate],
                    steps=(self.kinds[number].steps,),
                    val=val,
                )
                for number, of_kind in places.items()
            ]
        )
        return [
            (self.kinds[number], of_kind, of_populations)
            for (number, of_kind), of_populations in zip(places.items(), seen, strict=True)
        ]

    def _rate(self, kind: int, rate: Rate | None) -> Rate | None:
        """A kind's learning rate, where it is given as a multiple of cross-entropy's best one."""
        if rate is None:
            return None
        if self.references is None:
            raise ValueError("cross-entropy's best rates are not known yet")
        return rate * self.references.rates[kind]

    def sample(self, keys: list[Stream], pool: str) -> None:
        """None: tasks of unlike kinds do not lie in one tensor."""

    def step_choices(self) -> tuple[int, ...]:
        """The numbers of steps among which the strongest cross-entropy's is chosen: the kinds'
        own.
        """
        return (self.steps,)

    def enlarged(self, steps: int, scale: int) -> Self:
        """Nothing.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(
            f"{self.family.origin} is a mixture, whose kinds are of all sizes already: stages of "
            "an elimination need ordinary families (--tasks)"
        )

    def with_cache(self, folder: Path, conditions: Callable[[], Mapping[str, str]]) -> Self:
        """The same: the trainings of episodes are short, and none is kept."""
        return self

    @property
    def image_sets(self) -> list[ImageSet]:
        """Its data sets, each with its pools."""
        return [image_set for episodes in self.sets for image_set in episodes.image_sets]

    @property
    def data_origin(self) -> str:
        """Where its images come from, in words."""
        here = "; ".join(f"{x.family.dataset}: {x.dataset.origin}" for x in self.sets)
        return f"{here}; not here: {', '.join(self.absent)}" if self.absent else here

    def fingerprints(self) -> dict[str, str]:
        """The digests of its images, by their names among a run's conditions."""
        return {name: digest for x in self.sets for name, digest in x.fingerprints().items()}

    def provenances(self) -> dict[str, dict[str, Any]]:
        """Where the images of each data set come from, and what each of them is used for."""
        return {x.family.name: x.provenance() for x in self.sets}

    def estimate(
        self, engine: Engine, losses: Losses, budget: SearchBudget, key: Stream
    ) -> FamilyCost:
        """What a search with this mixture costs, by the time of trainings of some of its kinds.

        Args:
            engine: trains them.
            losses: examples of candidates.
            budget: the size of the search.
            key: of the tasks that are timed.
        """
        # Wherever the order is cut, it has kinds of all costs: a few stand for all of them.
        tasks = range(self.family.tasks_per_kind * min(TIMED_KINDS, self.kind_count))
        val = budget.validation
        seconds = seconds_each(
            lambda x: self.evaluate(engine, [x], "train", key, tasks, val=val), losses, len(tasks)
        )
        references = self.kind_count * self.family.reference_tasks * len(budget.rates)
        return search_cost(budget, seconds, references + budget.baseline_tasks)


def _at_rate(episodes: Episodes, rate: float) -> Episodes:
    """A kind that trains with another learning rate."""
    inner = replace(episodes.family.inner, lr=rate)
    return replace(episodes, family=replace(episodes.family, inner=inner))
