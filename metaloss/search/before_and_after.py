"""A refined loss beside what it was, on fresh meta-validation tasks."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core.devices import resolve_device
from metaloss.core.streams import Stream
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.references import with_references
from metaloss.losses.base import Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.canonical import fingerprint
from metaloss.search.run_folder import Run
from metaloss.search.run_tables import PairedGain
from metaloss.tasks.opening import with_training_cache

FILE = "refinement.json"


class FamilyGain(TypedDict):
    """What is needed of a family's row."""

    before: float
    after: float
    gain: PairedGain


class RefinementComparison(TypedDict):
    """What is needed of a `refinement.json`."""

    before: str
    after: str
    tasks: int
    families: dict[str, FamilyGain]


def kept_or_scored(
    run: Run, before: Criterion, after: Criterion, stop: Callable[[], bool], engine: EngineTable
) -> dict[str, Any]:
    """The comparison of two losses, from the run's file where it has it.

    Args:
        run: the refinement.
        before: what it set out from.
        after: its winner.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`.
        engine: where trainings run.

    Raises:
        DamagedFile: the file does not check out.
    """
    names = [_named(before), _named(after)]
    return _known(run.folder / FILE, names) or _score(run, before, after, stop, engine)


def _named(loss: Criterion) -> str:
    """A formula, or a description of a loss with a digest of its numbers."""
    if not isinstance(loss, GenomeCriterion):
        return loss.describe()
    return f"{loss.describe()}, numbers {fingerprint(repr(loss.candidate.vectors().tolist()))[:8]}"


def _side_by_side(one: Criterion, other: Criterion) -> Losses:
    """Two losses of one genome as a population."""
    if isinstance(one, FormulaCriterion) and isinstance(other, FormulaCriterion):
        return Formulas.of([one.formula, other.formula])
    assert isinstance(one, GenomeCriterion)
    assert isinstance(other, GenomeCriterion)
    return one.genome.losses(one.candidate.cat(other.candidate))


def _known(path: Path, losses: list[str]) -> dict[str, Any] | None:
    """The comparison of these losses, if there is one."""
    if not storage.is_file(path):
        return None
    table: dict[str, Any] = storage.read_record(path, RefinementComparison)
    return table if losses == [table["before"], table["after"]] else None


def _score(
    run: Run, before: Criterion, after: Criterion, stop: Callable[[], bool], engine: EngineTable
) -> dict[str, Any]:
    """Both losses at the families' own rates, on tasks that neither was chosen on."""
    search = run.settings
    device = resolve_device(search.device)
    tasks = search.winner_tasks
    families = run.opened(device)
    rows = {}
    with (
        storage.Lock(run.folder),
        open_engine(engine, device, search.memory, tf32=search.tf32, stop=stop) as opened,
    ):
        families = with_training_cache(run.folder, families, device)
        families = with_references(opened, families, search.rates, run.folder)
        key = Stream(search.seed)
        evaluation = LossEvaluation(opened, families, key, unit_gain=search.unit_gain)
        # Tasks of a role of their own: on those of the choice the winner would look too good.
        beside = evaluation.families[0].scale.beside
        measured = evaluation.validation_scores(
            _side_by_side(before, after), "refinement", tasks, beside
        )
        for number, of_family in enumerate(evaluation.each):
            columns = evaluation.family_index(tasks) == number
            rows[of_family.family.family.name] = _row(of_family, measured[:, columns])
        most = max(evaluation.task_counts(tasks))
        table = {
            "before": _named(before),
            "after": _named(after),
            "tasks": most,
            "families": rows,
        }
        storage.write_record(run.folder / FILE, table)
    return table


def _row(evaluation: FamilyEvaluation, measured: Float[Tensor, "2 T *K"]) -> dict[str, Any]:
    """What two losses, before and after, reached on a family's tasks.

    Args:
        evaluation: of the family.
        measured: their scores; where these are no accuracies, those follow in a column.
    """
    scale = evaluation.family.scale
    old, new = measured if scale.is_accuracy else measured[..., 0]
    versus = evaluation.compare(new, old)
    row = {
        "before": scale.value(versus.baseline_score),
        "after": scale.value(versus.score),
        "gain": scale.difference(asdict(versus.gain)),
        **scale.entry(),
    }
    if not scale.is_accuracy:
        means = measured[..., -1].double().nan_to_num(nan=0.0).mean(1).tolist()
        row["accuracy"] = dict(zip(("before", "after"), means, strict=True))
    return row
