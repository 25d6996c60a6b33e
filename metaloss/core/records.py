"""Records that go from one package to another as plain values, and into files as they are."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict


class Lead(TypedDict):
    """By how much a generation's best led, in units of fitness.

    Attributes:
        mean: its fitness less the mean of all that trained.
        error: the standard error of that: what other tasks of the same kinds would have changed.
    """

    mean: float
    error: float


class GenerationRecord(TypedDict):
    """A line of a search's `history.jsonl`; values are of the metric, accuracy by
    default, as means over the generation's tasks.

    Attributes:
        generation: its number: 1, 2, ...
        candidates: how many losses were scored.
        best: value of the fittest; None where every candidate failed.
        mean: value of all that did not fail; None likewise.
        diverged: candidates of which a training failed.
        failed_trainings: how many trainings did.
        tasks: how many each candidate met, of all families together.
        trained: candidates that were trained, and not known already.
        trainings: of the whole run until now.
        screened: candidates that did not pass the short training.
        refined: candidates that gradients made better.
        held_out: every few generations, what the mean candidate reached on held-out tasks: its
            value, under the metric's name, with `accuracy` beside another metric, its `gain` over
            tuned cross-entropy, and the standard `error` of that.
        lead: by how much the fittest led in fitness, where two or more trained.
        events: what the user should know.
        refused: how many each filter refused; of formulas, before these were varied again.
        control: of formulas, the value of cross-entropy on the same tasks.
        outside: candidates that lie outside the search's guard, where it has one.
        outside_losses: which of the formulas those are.
        losses: of formulas, each with its value, None for a failure; a file gives lists for
            the pairs.
    """

    generation: int
    candidates: int
    best: float | None
    mean: float | None
    diverged: int
    failed_trainings: int
    tasks: int
    trained: int
    trainings: int
    screened: NotRequired[int]
    refined: NotRequired[int]
    held_out: NotRequired[dict[str, float]]
    lead: NotRequired[Lead]
    events: NotRequired[list[str]]
    refused: NotRequired[dict[str, int]]
    control: NotRequired[float]
    outside: NotRequired[int]
    outside_losses: NotRequired[list[str]]
    losses: NotRequired[list[tuple[str, float | None]]]


def training_in_words(family: Mapping[str, Any]) -> str:
    """How the classifiers of a comparison's family train, and in what unit rates are."""
    if "inner" not in family:
        return (
            f"{family['kinds']} kinds of tasks, each at its own number of steps; rates are "
            "multiples of cross-entropy's best one at each kind"
        )
    return f"{family['inner']['steps']} steps, own learning rate {family['inner']['lr']:g}"


class StageRow(TypedDict):
    """A stage of an elimination, as a row of its table.

    Attributes:
        stage: its number.
        keep: how many losses go on.
        steps: of training, in multiples of the family's own.
        scale: width of the layers, in multiples of the family's own.
        tasks: of every family, for each repeat.
        repeats: how often they are drawn anew.
        losses: how many were trained.
        best: the best value of the families' metric.
        ce: that of cross-entropy on the same tasks.
        tau: how alike this stage and the one before order the losses; None for the first.
        outside: how many lie outside the guard, where there is one; `best` is then of those that do
            not, unless all do.
        best_accuracy, ce_accuracy: accuracies of the two, where the metric is another one.
        metric_scale: how values are shown; missing where they are accuracies.
    """

    stage: int
    keep: int
    steps: int
    scale: int
    tasks: int
    repeats: int
    losses: int
    best: float
    ce: float
    tau: float | None
    outside: NotRequired[int]
    best_accuracy: NotRequired[float]
    ce_accuracy: NotRequired[float]
    metric_scale: NotRequired[dict[str, Any]]


def loss_name(row: Mapping[str, Any], setting: str = "setting") -> str:
    """What a row of a comparison calls its loss: with its own parameters, where they were chosen.

    Args:
        row: of a loss, or of what is none.
        setting: the entry that says how it was used.
    """
    name: str = (row[setting] or {}).get("spec") or row["loss"]
    return name
