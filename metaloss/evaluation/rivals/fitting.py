"""Methods fitted to the tasks that losses are tuned and tested on."""

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


def fit_methods(
    evaluation: EpisodeEvaluation, tuning_tasks: int, test_tasks: int
) -> list[RivalMeasures]:
    """Every method on the meta-test tasks, its constant chosen on the meta-validation tasks.

    Args:
        evaluation: gives the tasks: those that losses are tuned and tested on.
        tuning_tasks: how many choose a constant.
        test_tasks: how many test it.
    """
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    # What only orders the classes has no value where probabilities are measured.
    of_probabilities = isinstance(evaluation.family.metric, LogitMetric)
    methods = [method for method in METHODS if method.probabilities or not of_probabilities]
    # With threads of its own, BLAS would round by how many there are.
    with threadpool_limits(1, user_api="blas"):
        grids = [(method, method.grid) for method in methods if method.grid]
        scores = _measured(evaluation, "validation", tuning_tasks, grids)
        values = {
            method.name: method.grid[_best(of_method)]
            for (method, _), of_method in zip(grids, scores, strict=True)
        }
        chosen = [(method, (values.get(method.name, 0.0),)) for method in methods]
        tested = _measured(evaluation, "test", test_tasks, chosen)
    return [
        RivalMeasures(method.name, FITTED, method.constant if method.grid else "", value, measures)
        for (method, (value,)), (measures,) in zip(chosen, tested, strict=True)
    ]


def _measured(
    evaluation: EpisodeEvaluation, pool: str, count: int, methods: Sequence[Constants]
) -> list[list[Measures]]:
    """The measures of each method with each constant, over tasks of a pool."""
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


def _best(of_method: Sequence[Measures]) -> int:
    """Which constant has the highest mean score."""
    return int(torch.stack([x.score for x in of_method]).nan_to_num().mean(1).argmax())


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
