"""A loss's numbers refined, by evolution or by gradients, and what that gained on fresh tasks.

The numbers are a formula's constants, a network's weights or the curves of learned targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.core import registry
from metaloss.core.config import merge_tables
from metaloss.core.reporting import Reporter
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.data.places import features_role
from metaloss.engines.opening import EngineTable
from metaloss.errors import SettingsError
from metaloss.genomes import FormulaSpace
from metaloss.genomes._first import StartsAt
from metaloss.losses import zoo
from metaloss.losses.language.formula import Formula
from metaloss.search import program, settings
from metaloss.search.before_and_after import kept_or_scored
from metaloss.search.finalists import original_of, without_first
from metaloss.search.run_folder import Run, find

GRADIENT_STEPS = 100  # generations of a refinement by gradient, where nothing is said
WAYS = ("evolution", "gradient")  # the usual one first


@dataclass(frozen=True)
class RefineResult:
    """A finished refinement.

    Attributes:
        best: the winner, which is the original where no other numbers were better.
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
    by: str = WAYS[0],
    strategy: str | dict[str, Any] | None = None,
    out: str | Path = "runs",
    runs: str | Path = "runs",
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    engine: EngineTable = None,
    **others: Any,
) -> RefineResult:
    """Refine a loss's numbers, and compare it with what it was; the run is one of `evolve`'s.

    Args:
        loss: a run, a loss or a formula, as `load` takes them.
        tasks: families to refine it on; those of the run where a run is meant, else
            "fashionmnist".
        by: "evolution", or "gradient": along the exact gradient of validation cross-entropy through
            trainings.
        strategy: the outer algorithm, by name or as a table; of "evolution" the genome's usual one
            where None.
        out: the folder that the run's folder is made in.
        runs: where runs are looked for by name.
        reporter: is told of everything that happens.
        stop: asked before every chunk of work; True drops it and raises `Interrupted`, `resume`
            goes on.
        engine: where trainings run: "local", "ray", or a table of settings with its `kind`.
        others: any further field of `Settings`, or of the families.

    Raises:
        SettingsError: no such loss, one without numbers to refine, or a setting that cannot be.
    """
    original = loss_io.load(loss, Path(runs))
    table = {
        **({"tasks": [tasks] if isinstance(tasks, str) else tasks} if tasks else {}),
        **settings.part_tables(strategy=strategy),
    }
    search = resolved(loss, merge_tables(table, others), Path(runs), by)
    before = loss_io.images_of(original)
    options: dict[str, Any] = {"reporter": reporter, "stop": stop, "engine": engine}
    run = program.start(search, Path(out), before=before, **options)
    return compare(run.folder, **options)


def resolved(
    loss: str | Path | nn.Module | Formula,
    changes: dict[str, Any],
    runs: Path,
    by: str = WAYS[0],
) -> settings.Settings:
    """The settings of the run that refines a loss.

    Args:
        loss: a run, a loss or a formula.
        changes: settings that are given.
        runs: where runs are looked for by name.
        by: what the loss is refined by.

    Raises:
        SettingsError: no such loss, one without numbers to refine, or a setting that cannot be.
    """
    original = loss_io.load(loss, runs)
    genome = {"genome": _genome_of(original, loss)}
    # By default a loss is refined on the tasks that it was evolved on.
    base = {} if "tasks" in changes else _families(loss, runs)
    if getattr(original, "normalise", False):
        base["unit_gain"] = True
    return settings.resolve(merge_tables(base, genome, _strategy(by, changes), changes))


def _genome_of(loss: nn.Module, spec: Any) -> dict[str, Any]:
    """The table of the genome whose search sets out from a loss.

    Raises:
        SettingsError: the loss has no numbers that could be refined.
    """
    if isinstance(loss, FormulaCriterion):
        return {"kind": "constants", "formula": str(loss.formula)}
    if isinstance(loss, GenomeCriterion) and isinstance(loss.genome, StartsAt):
        first = loss.candidate.vectors()[0].tolist()
        return {"kind": registry.kind(loss.genome), **registry.table(loss.genome), "first": first}
    raise SettingsError(
        f"{spec} has no numbers to refine; formulas with constants, networks and learned targets do"
    )


def _strategy(by: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What the choice of a way sets, below what is given.

    Raises:
        SettingsError: there is no such way, or another strategy is given.
    """
    if not isinstance(by, str):
        raise SettingsError(f"by must be '{WAYS[0]}' or '{WAYS[1]}', got {by!r}")
    if by not in WAYS:
        raise SettingsError(registry.unknown_message("way to refine", by, WAYS))
    table = changes.get("strategy")
    # What is no table is refused with the other settings.
    given = table.get("kind") if isinstance(table, Mapping) else None
    if by == "gradient":
        if given not in (None, "gradient"):
            raise SettingsError(f"by gradient, the strategy is 'gradient', not '{given}'")
        return {"strategy": {"kind": "gradient"}, "generations": GRADIENT_STEPS}
    return {}


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
    """Go on with a refinement, by whatever it is.

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
    """A finished run's winner beside what it set out from, on fresh meta-validation tasks; from its
    file if possible.

    Raises:
        DamagedFile: that file does not check out.
    """
    run = find(folder)
    best = loss_io.load(folder)
    assert isinstance(best, Criterion)
    before = _original(run)
    table = kept_or_scored(run, before, best, stop, engine)
    (reporter or Reporter()).on_refine_end(table)
    return RefineResult(best, table, folder)


def _original(run: Run) -> Criterion:
    """The loss that a run refines."""
    genome, _ = run.settings.build_parts()
    if isinstance(genome, FormulaSpace) and genome.originals:
        return FormulaCriterion(genome.originals[0])
    if (original := original_of(genome)) is not None:
        return GenomeCriterion(without_first(genome), original)
    raise SettingsError(
        f"{run.folder} is no refinement: its search, of genome '{run.settings.genome['kind']}', "
        "sets out from no loss"
    )
