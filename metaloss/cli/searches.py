"""The commands that search: evolve, eliminate, refine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaloss.cli import _options
from metaloss.cli._command import Command, interruptible, seconds
from metaloss.cli._terminal import echo_json, raw
from metaloss.core.config import merge_tables, parse_assignment
from metaloss.errors import SettingsError

if TYPE_CHECKING:
    from metaloss.search.settings import Settings

# Where an option of `evolve` and `refine` stands in the table of settings.
SETTING_OF_OPTION = {
    "tasks": "tasks",
    "genome": "genome.kind",
    "init": "genome.start",
    "strategy": "strategy.kind",
    "mu": "strategy.mu",
    "lambda_": "strategy.lambda_",
    "generations": "generations",
    "tasks_per_generation": "tasks_per_generation",
    "metric": "metric",
    "objective": "objective",
    "seed": "seed",
    "device": "device",
}


@click.command(cls=Command)
@_options.tasks
@click.option("--genome", metavar="NAME", help="The loss's representation (metaloss list genomes).")
@click.option("--strategy", metavar="NAME", help="The outer algorithm (metaloss list strategies).")
@click.option(
    "--preset",
    metavar="smoke|quick|long",
    help="Seconds; minutes (the default); half an hour or more.",
)
@_options.generations
@click.option("--mu", type=int, help="Parents of mu_plus_lambda and gp.")
@click.option(
    "--lambda", "lambda_", type=int, help="Children per generation of mu_plus_lambda and gp."
)
@click.option(
    "--tasks-per-generation", type=int, help="Tasks of every family that all candidates meet."
)
@_options.metric
@click.option(
    "--objective", metavar="mean|robust|wins|regret", help="From scores to fitness (mean)."
)
@click.option(
    "--init",
    metavar="random|LOSS",
    help="Random, losses by name or formula, with commas (networks: one).",
)
@_options.seed
@_options.device
@_options.engine
@_options.address
@_options.out("runs", "run")
@click.option("--resume", metavar="RUN", help="Go on with this run: a path, or a name under --out.")
@click.option(
    "--allow-changes", is_flag=True, help="Resume although versions, device or data are others."
)
@click.option(
    "--time-limit", metavar="30m", help="Start no new generation after this time (s, m, h)."
)
@click.option("--config", type=click.Path(path_type=Path), help="A run's config.toml; flags win.")
@_options.setting("inner.lr=0.3")
@click.option("--dry-run", is_flag=True, help="Print the settings and what the run would cost.")
@_options.summary_json
@_options.quiet
@_options.verbose
@_options.plugins
@_options.debug
def evolve(
    out: str,
    resume: str | None,
    allow_changes: bool,
    time_limit: str | None,
    config: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    preset: str | None,
    assignments: Sequence[str],
    engine: str | None,
    address: str | None,
    **options: Any,
) -> None:
    """Evolve a loss: the main job. Runs with no option at all."""
    # Before anything heavy is imported, so that Ctrl-C is heard from the first moment.
    from metaloss.console import Console

    with Console(quiet or as_json, verbose) as console, interruptible(console) as stop:
        limit = seconds(time_limit) if time_limit else None
        changes = _changes(options, assignments)
        from metaloss.search import program, settings

        job = {"time_limit": limit, "reporter": console, "stop": stop}
        if resume:
            _refuse_with_resume(config or preset or dry_run)
            changes, where = _options.split_engine(changes, engine, address)
            result = program.resume(
                resume, changes=changes, out=out, allow_changes=allow_changes, engine=where, **job
            )
        else:
            table = _table(config, preset, changes)
            table, where = _options.split_engine(table, engine, address)
            search = settings.resolve(table)
            if dry_run:
                return _dry_run(search, where, as_json)
            result = program.start(search, Path(out), engine=where, **job)
    if as_json:
        echo_json({"run": str(result.folder), **result.summary})


@click.command(cls=Command)
@click.argument("run", metavar="RUN")
@click.option("--start", type=int, help="How many of the search's best losses begin (100).")
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAME|PATH.toml|folder:PATH",
    help="Families; the run's own if none.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="folder:PATH",
    help="Where the run's images lie, if they were moved.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="TOML with start, tasks and [[stages]]; flags win.",
)
@_options.engine
@_options.address
@_options.setting("stages=[{keep=3}]")
@_options.runs
@_options.summary_json
@_options.quiet
@_options.plugins
@_options.debug
@click.pass_context
def eliminate(
    ctx: click.Context,
    run: str,
    start: int | None,
    tasks: Sequence[str],
    data: Sequence[str],
    config: Path | None,
    assignments: Sequence[str],
    engine: str | None,
    address: str | None,
    runs: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Re-train a search's best losses until few are left. At growing budgets."""
    from metaloss.console import Console

    with (
        Console(quiet or as_json) as console,
        # The same command goes on: finished stages are read from the folder.
        interruptible(console, lambda: ctx.meta["line"]) as stop,
    ):
        # What imports torch comes only now, when Ctrl-C is heard already.
        from metaloss.search import elimination, settings

        options = {"start": start, "tasks": list(tasks) or None}
        flags = {key: value for key, value in options.items() if value is not None}
        base = settings.read(config) if config else {}
        changes = merge_tables(base, flags, *map(parse_assignment, assignments))
        changes, where = _options.split_engine(changes, engine, address)
        result = elimination.eliminate(
            run, runs=runs, reporter=console, stop=stop, engine=where, changes=changes, data=data
        )
    if as_json:
        echo_json(result.summary)


@click.command(cls=Command)
@click.argument("spec", metavar="RUN|LOSS", required=False)
@_options.tasks
@click.option(
    "--by",
    metavar="evolution|gradient",
    help="By an evolution strategy (the default), or by gradients through trainings.",
)
@click.option(
    "--strategy", metavar="NAME", help="Of evolution: mu_plus_lambda, openai_es, cma_es or others."
)
@_options.generations
@_options.seed
@_options.device
@_options.engine
@_options.address
@_options.runs
@_options.out("runs", "run")
@click.option(
    "--resume", metavar="RUN", help="Go on with this refinement: a path, or a name under --out."
)
@_options.setting("strategy.lr=0.05")
@click.option("--dry-run", is_flag=True, help="Print the settings and what the run would cost.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print before and after as JSON, and nothing else."
)
@_options.quiet
@_options.verbose
@_options.plugins
@_options.debug
def refine(
    spec: str | None,
    by: str | None,
    runs: str,
    out: str,
    resume: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    assignments: Sequence[str],
    engine: str | None,
    address: str | None,
    **options: Any,
) -> None:
    """Refine a loss's numbers. The result is compared with what it was.

    They are a formula's constants, a network's weights or the curves of learned targets.
    """
    from metaloss.console import Console

    if (spec is None) == (resume is None):
        raise SettingsError(
            "refine takes a run or a loss, or --resume RUN to go on with a refinement"
        )
    # Made before the block: what Ctrl-C prints asks it for the run's folder.
    console = Console(quiet or as_json, verbose)
    with (
        console,
        interruptible(console, lambda: f"metaloss refine --resume {console.folder}") as stop,
    ):
        from metaloss.search import refinement

        changes = _changes(options, assignments)
        changes, where = _options.split_engine(changes, engine, address)
        job = {"out": out, "reporter": console, "stop": stop, "engine": where}
        if resume:
            if by:
                raise SettingsError("--resume goes on by what the refinement began with: no --by")
            if dry_run:
                raise SettingsError("--resume goes on with a run; --dry-run cannot go with it")
            result = refinement.resume(resume, changes=changes, **job)
        else:
            way = by or refinement.WAYS[0]
            if dry_run:
                search = refinement.resolved(str(spec), changes, Path(runs), way)
                return _dry_run(search, where, as_json)
            result = refinement.refine(str(spec), by=way, runs=runs, **job, **changes)
    if as_json:
        echo_json({"run": str(result.folder), **result.comparison})


def _refuse_with_resume(other_settings: object) -> None:
    if other_settings:
        raise SettingsError(
            "--resume keeps the run's settings; --config, --preset and --dry-run cannot go with it"
        )


def _changes(options: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """The settings that were given, by options and by --set, as a table."""
    tables: list[dict[str, Any]] = []
    for name, path in SETTING_OF_OPTION.items():
        value = options.get(name)
        if value in (None, "", ()):  # not given
            continue
        table: Any = list(value) if isinstance(value, tuple) else value
        for key in reversed(path.split(".")):
            table = {key: table}
        tables.append(table)
    return merge_tables(*tables, *map(parse_assignment, assignments))


def _table(config: Path | None, preset: str | None, changes: dict[str, Any]) -> dict[str, Any]:
    """Preset, configuration file and flags, laid over each other in this order."""
    from metaloss.search import settings

    base = settings.read(config) if config else {}
    # Tasks that are named now replace the file's families, which would win over them.
    if "tasks" in changes:
        base.pop("families", None)
    return merge_tables(settings.preset(preset or "quick"), merge_tables(base, changes))


def _dry_run(search: "Settings", engine: dict[str, Any] | None, as_json: bool) -> None:
    from metaloss.search import settings
    from metaloss.search.estimate import estimate_cost, estimate_text

    estimate = estimate_cost(search, engine)
    if as_json:
        echo_json({"settings": search.table(), "estimate": estimate})
        return
    raw(settings.toml(search).decode())
    raw(f"# {estimate_text(estimate)}")  # all of it is a file that --config takes
