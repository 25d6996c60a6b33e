"""Methods fitted to the tasks that losses are tuned and tested on."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.evaluation.episode_evaluation import EpisodeEvaluation, all_waves, waves_of
from metaloss.evaluation.rivals.methods import METHODS, Method, TaskArrays
from metaloss.inner.metrics import LogitMetric
from metaloss.inner.observers import Measures
from metaloss.tasks.uneven import has_uneven_tasks

FITTED = "fitted"  # the kind of a rival that has no network
AFTER = "after training"  # of one that changes what a network gives

Constants = tuple[Method, tuple[float, ...]]  # a method and what it is fitted with


@dataclass(frozen=True)
class RivalMeasures:
    """What a rival reached on the meta-test tasks.

    Attributes:
        name: as tables show it.
        kind: `FITTED` or `AFTER`.
        constant: the name of what was chosen on meta-validation tasks; "" where nothing was.
        value: what was chosen.
        measures: of every task.
    """

    name: str
    kind: str
    constant: str
    value: float
    measures: Measures


@dataclass(frozen=True)
class FittedChoice:
    """A method and the constant that meta-validation tasks chose for it.

    Attributes:
        method: what is fitted.
        value: the constant; 0 where it has none.
        score: the mean on those tasks, a failure counting as 0.
    """

    method: Method
    value: float
    score: float

    @property
    def name(self) -> str:
        """As tables show it."""
        return self.method.name

    @property
    def kind(self) -> str:
        """That it has no network."""
        return FITTED

    @property
    def constant(self) -> str:
        """The name of what was chosen; "" where nothing was."""
        return self.method.constant if self.method.grid else ""

    def measured(self, measures: Measures) -> RivalMeasures:
        """With what it reached on the meta-test tasks."""
        return RivalMeasures(self.name, self.kind, self.constant, self.value, measures)


def fit_methods(
    evaluation: EpisodeEvaluation, tuning_tasks: int, test_tasks: int
) -> list[RivalMeasures]:
    """Every method on the meta-test tasks, its constant chosen on the meta-validation tasks.

    Args:
        evaluation: gives the tasks: those that losses are tuned and tested on.
        tuning_tasks: how many choose a constant.
        test_tasks: how many test it.
    """
    return measure_methods(evaluation, choose_methods(evaluation, tuning_tasks), test_tasks)


def choose_methods(evaluation: EpisodeEvaluation, tasks: int) -> list[FittedChoice]:
    """Every method with the constant that is best on meta-validation tasks.

    Args:
        evaluation: gives the tasks: those that losses are tuned on.
        tasks: how many.
    """
    # What only orders the classes has no value where probabilities are measured.
    of_probabilities = isinstance(evaluation.family.metric, LogitMetric)
    uneven = has_uneven_tasks(evaluation.family.family)
    grids = [
        (method, method.grid or (0.0,))
        for method in METHODS
        if (method.probabilities or not of_probabilities) and (uneven or not method.weighted)
    ]
    measured = _measured(evaluation, "validation", tasks, grids)
    return [
        _best(method, grid, of_method)
        for (method, grid), of_method in zip(grids, measured, strict=True)
    ]


def measure_methods(
    evaluation: EpisodeEvaluation, chosen: Sequence[FittedChoice], tasks: int
) -> list[RivalMeasures]:
    """What chosen methods reach on meta-test tasks.

    Args:
        evaluation: gives the tasks: those that losses are tested on.
        chosen: the methods with their constants.
        tasks: how many.
    """
    tested = _measured(evaluation, "test", tasks, [(x.method, (x.value,)) for x in chosen])
    return [x.measured(measures) for x, (measures,) in zip(chosen, tested, strict=True)]


def _measured(
    evaluation: EpisodeEvaluation, pool: str, count: int, methods: Sequence[Constants]
) -> list[list[Measures]]:
    """The measures of each method with each constant, over tasks of a pool."""
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    waves = []
    for numbers in waves_of(count):
        keys = [evaluation.key.at(pool, "task", t) for t in numbers]
        tasks = evaluation.family.sample(keys, pool)

        def fitted(t: int, tasks: Tasks = tasks, first: int = numbers.start) -> list[Tensor]:
            task = arrays_of(tasks, t, evaluation.key.at("rivals", pool, first + t))
            return [
                torch.from_numpy(method.logits(task, value)).float()
                for method, values in methods
                for value in values
            ]

        # Task by task on the engine's threads: a result depends on its own task alone.
        # With threads of its own, BLAS would round by how many there are. Filters of warnings are
        # of all threads together, so that one shows what another ignores: here none is shown.
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings(record=True):
            each = evaluation.engine.map(fitted, range(len(tasks)))
        logits = [torch.stack(of_tasks) for of_tasks in zip(*each, strict=True)]
        waves.append([evaluation.measures_by(x, tasks) for x in logits])
    places = iter([all_waves(parts) for parts in zip(*waves, strict=True)])
    return [
        [next(places) if method.probabilities else answers_alone(next(places)) for _ in values]
        for method, values in methods
    ]


def answers_alone(measures: Measures) -> Measures:
    """The measures without those of probabilities."""
    unknown = torch.full_like(measures.nll, torch.nan)
    return replace(measures, nll=unknown, calibration=unknown)


def _best(method: Method, grid: Sequence[float], of_method: Sequence[Measures]) -> FittedChoice:
    """The method with the constant that has the highest mean score."""
    scores = torch.stack([x.score for x in of_method]).nan_to_num().mean(1)
    best = int(scores.argmax())
    return FittedChoice(method, grid[best], float(scores[best]))


def arrays_of(tasks: Tasks, t: int, key: Stream) -> TaskArrays:
    """One of some tasks as arrays, without the rows that pad it and without augmented versions."""
    train = tasks.train.originals
    count = train.rows.shape[1] if train.count is None else int(train.count[t])
    x, x_val = (
        half.images.at(rows[None])[0].flatten(1).double().cpu().numpy()
        for half, rows in ((train, train.rows[t, :count]), (tasks.val, tasks.val.rows[t]))
    )
    seed = int(key.integers(1 << 31, 1))
    return TaskArrays(x, train.label[t, :count].cpu().numpy(), x_val, tasks.ways, seed)
