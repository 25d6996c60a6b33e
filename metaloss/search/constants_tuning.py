"""A formula's constants tuned by evolution strategy, and what that gained on fresh tasks."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core.config import merge_tables
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.data.places import features_role
from metaloss.engines.opening import EngineTable, open_engine
from metaloss.errors import SettingsError
from metaloss.evaluation.family_evaluation import FamilyEvaluation
from metaloss.evaluation.protocol import LossEvaluation
from metaloss.evaluation.references import with_references
from metaloss.genomes import FormulaSpace
from metaloss.losses import zoo
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search import program, settings
from metaloss.search.run_folder import Run, find
from metaloss.search.run_tables import PairedGain
from metaloss.tasks.opening import with_training_cache

FILE = "refinement.json"


class FamilyGain(TypedDict):
    """What is needed of a family's row."""

    before: float
    after: float
    gain: PairedGain


class ConstantsComparison(TypedDict):
    """What is needed of a `refinement.json`."""

    before: str
    after: str
    tasks: int
    families: dict[str, FamilyGain]


@dataclass(frozen=True)
class RefineResult:
    """A finished refinement.

    Attributes:
        best: the winner, which is the original where no other constants were better.
        comparison: before and after on fresh meta-validation tasks, per family.
        folder: the run's.
    """

    best: Criterion
    comparison: dict[str, Any]
    folder: Path


def refine(
    loss: str | Path | nn.Module | Formula,
    tasks: str | Sequence[str] | None = None,
    *,
    strategy: str | dict[str, Any] | None = None,
    out: str | Path = "runs",
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
    **others: Any,
) -> RefineResult:
    """Tune a formula's constants, and compare it with what it was; the run is one of `evolve`'s.

    Args:
        loss: a run, a loss or a formula, as `load` takes them.
        tasks: families to tune it on; those of the run where a run is meant, else "fashionmnist".
        strategy: the outer algorithm, by name or as a table.
        out: the folder that the run's folder is made in.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`, `resume`
            goes on.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
        others: any further field of `Settings`, or of the families.

    Raises:
        SettingsError: no such loss, one that is no formula or has no constants, or a setting that
            cannot be.
    """
    original = loss_io.load(loss, Path(runs))
    table = {
        **({"tasks": [tasks] if isinstance(tasks, str) else list(tasks)} if tasks else {}),
        **settings.part_tables(strategy=strategy),
    }
    search = resolved(loss, merge_tables(table, others), Path(runs))
    before = loss_io.images_of(original)
    options: dict[str, Any] = {"reporter": reporter, "stop": stop, "engine": engine}
    run = program.start(search, Path(out), before=before, **options)
    return compare(run.folder, **options)


def resolved(
    loss: str | Path | nn.Module | Formula, changes: dict[str, Any], runs: Path
) -> settings.Settings:
    """The settings of the run that tunes a loss.

    Raises:
        SettingsError: no such loss, one that is no formula or has no constants, or a setting that
            cannot be.
    """
    original = loss_io.load(loss, runs)
    if not isinstance(original, FormulaCriterion):
        what = original.describe() if isinstance(original, Criterion) else type(original).__name__
        raise SettingsError(f"{loss} is no formula but a {what}: there are no constants to tune")
    # By default constants are tuned on the tasks that the formula was evolved on.
    base = {} if "tasks" in changes else _families(loss, runs)
    if original.normalise:
        base["unit_gain"] = True
    genome = {"genome": {"kind": "constants", "formula": str(original.formula)}}
    return settings.resolve(merge_tables(base, genome, changes))


def _families(loss: Any, runs: Path) -> dict[str, Any]:
    """The families of the run that is meant, and its guard, if one is."""
    if not isinstance(loss, str | Path) or zoo.published(str(loss)):
        return {}
    try:
        run = find(loss, runs)
    except SettingsError:
        return {}
    table = run.settings.table()
    where = run.places()
    # The images may lie elsewhere now than when the run began.
    for family in table["families"]:
        if "datasets" in family:
            roles = [f"{family['name']} {dataset}" for dataset in family["datasets"]]
            family["datasets"] = [where[role] for role in roles]
            continue
        images, key = (family["training"], "data") if "training" in family else (family, "dataset")
        images[key] = where[family["name"]]
        if (role := features_role(family["name"])) in where:
            family["features"] = where[role]
    return {key: table[key] for key in ("tasks", "families", "guard") if key in table}


def resume(
    spec: str | Path,
    *,
    out: str | Path = "runs",
    changes: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
) -> RefineResult:
    """Go on with a refinement.

    Args:
        spec: its run's folder, or its name under `out`.
        out: where runs are looked for by name.
        changes: settings given again, as for `metaloss.resume`.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.

    Raises:
        SettingsError: no such run, or one of another genome.
    """
    _original(find(spec, Path(out)))
    options: dict[str, Any] = {"reporter": reporter, "stop": stop, "engine": engine}
    run = program.resume(spec, out=out, changes=changes, **options)
    return compare(run.folder, **options)


def compare(
    folder: Path,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
) -> RefineResult:
    """A finished run's winner beside what its formula was, on fresh meta-validation tasks; from its
    file if possible.

    Raises:
        DamagedFile: that file does not check out.
    """
    run = find(folder)
    best = loss_io.load(folder)
    assert isinstance(best, FormulaCriterion)
    before = _original(run)
    table = _known(folder / FILE, [str(before), str(best.formula)]) or _score(
        run, before, best.formula, stop, engine
    )
    (reporter or Reporter()).on_refine_end(table)
    return RefineResult(best, table, folder)


def _original(run: Run) -> Formula:
    """The formula whose constants a run tunes."""
    genome, _ = run.settings.build_parts()
    if not isinstance(genome, FormulaSpace) or not genome.originals:
        raise SettingsError(
            f"{run.folder} tunes no constants, its genome is '{run.settings.genome['kind']}'"
        )
    return genome.originals[0]


def _known(path: Path, formulas: list[str]) -> dict[str, Any] | None:
    """The comparison of these formulas, if there is one."""
    if not storage.is_file(path):
        return None
    table: dict[str, Any] = storage.read_record(path, ConstantsComparison)
    return table if formulas == [table["before"], table["after"]] else None


def _score(
    run: Run, before: Formula, after: Formula, stop: Callable[[], bool], engine: EngineTable
) -> dict[str, Any]:
    """Both formulas at the families' own rates, on tasks that neither was chosen on."""
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
            Formulas.of([before, after]), "refinement", tasks, beside
        )
        for number, of_family in enumerate(evaluation.each):
            columns = evaluation.family_index(tasks) == number
            rows[of_family.family.family.name] = _row(of_family, measured[:, columns])
        most = max(evaluation.task_counts(tasks))
        table = {"before": str(before), "after": str(after), "tasks": most, "families": rows}
        storage.write_record(run.folder / FILE, table)
    return table


def _row(evaluation: FamilyEvaluation, measured: Float[Tensor, "2 T *K"]) -> dict[str, Any]:
    """What two formulas, before and after, reached on a family's tasks.

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
