"""The command line: arguments, printing, exit codes. Nothing heavy is imported before a command runs."""

import contextlib
import json
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from metaloss._version import __version__
from metaloss.errors import DiskError, Interrupted, MetalossError, SettingsError

FORMULA = re.compile(r"-(?!-).*\b(p|logp)\b", re.DOTALL)


class Command(click.Command):
    """Lets a repeatable option take several values at once, `--tasks a b c`, and a formula begin with a minus."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat such an option before each of its values, and shift such a formula, so that it is no option."""
        ctx.meta["line"] = f"{ctx.command_path} {shlex.join(args)}"
        args = [f" {arg}" if FORMULA.match(arg) else arg for arg in args]
        many = {flag for p in self.params if isinstance(p, click.Option) and p.multiple for flag in p.opts}
        spread: list[str] = []
        flag = ""
        for arg in args:
            if arg.startswith("-"):
                flag = arg if arg in many else ""
            elif flag and spread[-1] != flag:
                spread.append(flag)
            spread.append(arg)
        return super().parse_args(ctx, spread)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="metaloss")
def cli() -> None:
    """Learn the loss function that a small data set needs."""


@cli.command(cls=Command)
@click.option("--tasks", multiple=True, metavar="NAME|PATH.toml|folder:PATH", help="One or several task families.")
@click.option("--genome", metavar="NAME", help="The loss's representation (metaloss list genomes).")
@click.option("--strategy", metavar="NAME", help="The outer algorithm (metaloss list strategies).")
@click.option("--preset", metavar="smoke|quick|long", help="Seconds; minutes (the default); half an hour or more.")
@click.option("--generations", type=int, help="How many generations to run.")
@click.option("--mu", type=int, help="Parents of mu_plus_lambda and gp.")
@click.option("--lambda", "lambda_", type=int, help="Children per generation of mu_plus_lambda and gp.")
@click.option("--tasks-per-generation", type=int, help="Tasks of every family that all candidates meet.")
@click.option("--objective", metavar="mean|robust|wins", help="From accuracies to fitness (mean).")
@click.option("--init", metavar="random|LOSS", help="Random, losses by name or formula, with commas (networks: one).")
@click.option("--seed", type=int, help="Of every random draw.")
@click.option("--device", metavar="auto|cpu|cuda", help="Where classifiers train.")
@click.option("--out", default="runs", show_default=True, help="The folder that the run's folder is made in.")
@click.option("--resume", metavar="RUN", help="Go on with this run: a path, or a name under --out.")
@click.option("--allow-changes", is_flag=True, help="Resume although versions, device or data are others.")
@click.option("--time-limit", metavar="30m", help="Start no new generation after this time (s, m, h).")
@click.option("--config", type=click.Path(path_type=Path), help="A run's config.toml; flags win.")
@click.option("--set", "assignments", multiple=True, metavar="inner.lr=0.3", help="Any setting by its path.")
@click.option("--dry-run", is_flag=True, help="Print the settings and what the run would cost.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for every generation.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def evolve(
    out: str, resume: str | None, allow_changes: bool, time_limit: str | None, config: Path | None, dry_run: bool,
    as_json: bool, quiet: bool, verbose: bool, preset: str | None, **flags: Any,
) -> None:  # fmt: skip
    """Evolve a loss: the main job. Runs with no option at all."""
    # Before anything heavy is imported, so that Ctrl-C is heard from the first moment.
    from metaloss.console import Console

    with Console(quiet or as_json, verbose) as console, _interruptible(console) as stop:
        how = {"time_limit": _seconds(time_limit) if time_limit else None, "reporter": console, "stop": stop}
        changes = _changes(flags)
        from metaloss import search, settings

        if resume and (config or preset or dry_run):
            raise SettingsError("--resume keeps the run's settings; --config, --preset and --dry-run cannot go with it")
        if resume:
            result = search.resume(resume, changes=changes, out=out, allow_changes=allow_changes, **how)
        else:
            chosen = settings.resolve(_table(config, preset, changes))
            if dry_run:
                return _dry_run(chosen, as_json)
            result = search.start(chosen, Path(out), **how)
    if as_json:
        click.echo(json.dumps({"run": str(result.folder), **result.summary}, indent=1))


@cli.command(cls=Command)
@click.argument("run", metavar="RUN")
@click.option("--start", type=int, help="How many of the search's best losses begin (100).")
@click.option("--tasks", multiple=True, metavar="NAME|PATH.toml|folder:PATH", help="Families; the run's own if none.")
@click.option("--config", type=click.Path(path_type=Path), help="TOML with start, tasks and [[stages]]; flags win.")
@click.option("--set", "assignments", multiple=True, metavar="stages=[{keep=3}]", help="Any setting by its path.")
@click.option("--out", default="runs", show_default=True, help="Where runs are looked for by name.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
@click.pass_context
def eliminate(
    ctx: click.Context, run: str, start: int | None, tasks: Sequence[str], config: Path | None,
    assignments: Sequence[str], out: str, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Re-train the best losses of a whole search at growing budgets until few are left."""
    from metaloss.console import Console

    with Console(quiet or as_json) as console, _interruptible(console, lambda: ctx.meta["line"]) as stop:
        from metaloss import elimination, settings

        given = {"start": start, "tasks": list(tasks) or None}
        flags = {key: value for key, value in given.items() if value is not None}
        base = settings.read(config) if config else {}
        chosen = settings.merged(base, flags, *map(settings.assignment, assignments))
        result = elimination.eliminate(run, out=out, reporter=console, stop=stop, chosen=chosen)
    if as_json:
        click.echo(json.dumps(result.summary, indent=1))


@cli.command(cls=Command)
@click.argument("spec", metavar="RUN|LOSS", required=False)
@click.option("--tasks", multiple=True, metavar="NAME|PATH.toml|folder:PATH", help="One or several task families.")
@click.option("--strategy", metavar="NAME", help="mu_plus_lambda (the default), openai_es or random_search.")
@click.option("--generations", type=int, help="How many generations to run.")
@click.option("--seed", type=int, help="Of every random draw.")
@click.option("--device", metavar="auto|cpu|cuda", help="Where classifiers train.")
@click.option("--out", default="runs", show_default=True, help="The folder that the run's folder is made in.")
@click.option("--resume", metavar="RUN", help="Go on with this refinement: a path, or a name under --out.")
@click.option("--set", "assignments", multiple=True, metavar="strategy.sigma=0.1", help="Any setting by its path.")
@click.option("--json", "as_json", is_flag=True, help="Print before and after as JSON, and nothing else.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for every generation.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def refine(
    spec: str | None, out: str, resume: str | None, as_json: bool, quiet: bool, verbose: bool, **flags: Any
) -> None:
    """Tune a formula's constants by evolution strategy, and compare it with what it was."""
    from metaloss.console import Console

    if (spec is None) == (resume is None):
        raise SettingsError("refine takes a run or a loss, or --resume RUN to go on with a refinement")
    console = Console(quiet or as_json, verbose)
    with console, _interruptible(console, lambda: f"metaloss refine --resume {console.folder}") as stop:
        from metaloss import refinement

        how = {"out": out, "reporter": console, "stop": stop}
        if resume:
            result = refinement.resume(resume, changes=_changes(flags), **how)
        else:
            result = refinement.refine(str(spec), **_changes(flags), **how)
    if as_json:
        click.echo(json.dumps({"run": str(result.folder), **result.comparison}, indent=1))


@cli.command(cls=Command)
@click.argument("losses", nargs=-1, required=True, metavar="RUN|LOSS...")
@click.option("--tasks", multiple=True, metavar="NAME|PATH.toml|folder:PATH", help="One or several task families.")
@click.option("--against", metavar="RUN|LOSS", help="What all are set beside (ce).")
@click.option("--tune", metavar="rate|steps", help="Each loss's learning rate; or its number of steps, too.")
@click.option("--tuning-tasks", type=int, help="Meta-validation tasks of every family (64).")
@click.option("--test-tasks", type=int, help="Meta-test tasks of every family (300).")
@click.option("--seed", type=int, help="Of every random draw.")
@click.option("--device", metavar="auto|cpu|cuda", help="Where classifiers train.")
@click.option("--allow-seen", is_flag=True, help="Compare although a run has learned from test images.")
@click.option("--set", "assignments", multiple=True, metavar="inner.steps=40", help="Any setting by its path.")
@click.option("--runs", default="runs", show_default=True, help="Where runs are looked for by name.")
@click.option("--out", default="compare", show_default=True, help="The folder that the report's folder is made in.")
@click.option("--name", default="", help="The report's folder; by default the families' names and the seed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def compare(
    losses: Sequence[str], assignments: Sequence[str], runs: str, out: str, name: str, as_json: bool, quiet: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Set losses beside each other on held-out tasks, each one tuned, and write a report."""
    from metaloss.console import Console

    with Console(quiet or as_json) as console, _interruptible(console) as stop:
        from metaloss import comparison, settings

        given = {key: value for key, value in flags.items() if value not in (None, ())}
        chosen = settings.merged(given, *map(settings.assignment, assignments))
        how = {"out": out, "name": name, "runs": runs, "reporter": console, "stop": stop}
        for spec in losses:
            _announce(spec)
        result = comparison.start([spec.strip() for spec in losses], chosen, **how)
    if as_json:
        click.echo(json.dumps({"folder": str(result.folder), **result.summary}, indent=1))


@cli.command(cls=Command)
@click.argument("table", metavar="mln")
@click.option("--loss", metavar="RUN|LOSS", help="What stands for the paper's own loss; the shipped one by default.")
@click.option("--evolve", "anew", is_flag=True, help="Evolve it anew, by the default search.")
@click.option("--set", "assignments", multiple=True, metavar="test_tasks=300", help="Any setting of a comparison.")
@click.option("--runs", default="runs", show_default=True, help="Where runs are made and looked for by name.")
@click.option("--out", default="compare", show_default=True, help="The folder that the report's folder is made in.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, and nothing else.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def reproduce(
    table: str, loss: str | None, anew: bool, assignments: Sequence[str], runs: str, out: str, as_json: bool
) -> None:
    """Print a paper's table beside ours, on the data sets that are here."""
    from metaloss.console import Console

    console = Console(quiet=True)
    with console, _interruptible(console, lambda: f"metaloss evolve --resume {console.folder}") as stop:
        from metaloss import reproduction
        from metaloss.settings import assignment, merged

        how = {"out": out, "runs": runs, "reporter": console, "stop": stop}
        found = reproduction.reproduce(table, loss=loss, evolve=anew, **how, **merged(*map(assignment, assignments)))
    click.echo(json.dumps(found.plain(), indent=1) if as_json else "\n".join(reproduction.lines(found)))


@cli.command(cls=Command)
@click.argument("spec", metavar="RUN|LOSS")
@click.option("--out", default="runs", show_default=True, help="Where runs are looked for by name.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def show(spec: str, out: str, as_json: bool) -> None:
    """Describe a run or a loss, and draw its phenotype."""
    from metaloss import report

    _announce(spec)
    table = report.describe(spec, Path(out))
    click.echo(json.dumps(table, indent=1) if as_json else report.text(table))


@cli.command(cls=Command)
@click.argument("spec", metavar="RUN|LOSS")
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="F.py|.tex|.pt2|.json",
    help="The file; its suffix says the form.",
)
@click.option("--out", default="runs", show_default=True, help="Where runs are looked for by name.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def export(spec: str, path: Path, out: str) -> None:
    """Write a loss as Python that needs torch alone, as LaTeX, as a torch.export program or as a folder to share."""
    from metaloss import catalogue
    from metaloss import export as exports

    _announce(spec)
    loss = catalogue.load(spec, out)
    exports.export(loss, path)  # type: ignore[arg-type]
    click.echo(f"wrote {path}")


@cli.command("list", cls=Command)
@click.argument("kind", metavar="tasks|losses|primitives|genomes|strategies|classifiers|data|runs")
@click.argument("pattern", default="")
@click.option("--out", default="runs", show_default=True, help="Where runs are.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def list_(kind: str, pattern: str, out: str, as_json: bool) -> None:
    """List what there is of a kind; PATTERN is a part of its name."""
    from metaloss import report

    rows = [row for row in report.listing(kind, Path(out)) if pattern.lower() in row["name"].lower()]
    if as_json:
        return click.echo(json.dumps(rows, indent=1))
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        click.echo(f"{row['name']:{width}}  {row['about']}")


@cli.group()
def data() -> None:
    """Download a data set, or check the one that is here."""


@data.command(cls=Command)
@click.argument("name")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def fetch(name: str) -> None:
    """Download data set NAME into the user's data folder."""
    from metaloss import datasets

    click.echo(datasets.fetch(name))


@data.command(cls=Command)
@click.argument("name")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def verify(name: str) -> None:
    """Read and check every image and label of data set NAME."""
    from metaloss import datasets

    click.echo("\n".join(datasets.verify(name)))


@cli.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def doctor(as_json: bool) -> None:
    """Look at versions, device, data sets and extras, and say what to do about each."""
    from dataclasses import asdict

    from metaloss.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1))
    else:
        width = max(len(f.name) for f in findings)
        for f in findings:
            click.echo(f"{f.name:{width}}  {f.found}" + (f"\n{'':{width}}    {f.advice}" if f.advice else ""))
    if any(f.fatal for f in findings):
        raise MetalossError("something that metaloss needs is missing; see above")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; every error becomes one line on stderr and its exit code."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        code = cli.main(given, prog_name="metaloss", standalone_mode=False)
    except click.exceptions.Abort:
        code = 130
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.ClickException as error:
        code = _complain(error.format_message(), 2)
    except KeyboardInterrupt:
        code = _complain("interrupted", 130)
    except MetalossError as error:
        if "--debug" in given:
            traceback.print_exc()
        code = _complain(str(error), error.exit_code)
    except BrokenPipeError:
        code = 1
    except OSError as error:  # what no one nearer to it has put into words
        if "--debug" in given:
            traceback.print_exc()
        code = _complain(f"{error.filename or 'a file'}: {error.strerror or error}", DiskError.exit_code)
    except Exception as error:
        if "--debug" in given:
            traceback.print_exc()
        code = _complain(f"{type(error).__name__}: {error}  (a bug of metaloss; --debug shows where)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _announce(spec: str) -> None:
    """Say what a name means that is a published loss and a path."""
    from metaloss import catalogue

    if catalogue.named(spec) and Path(spec).exists():
        click.echo(f"'{spec}' is the loss of that name; ./{spec} means the path", err=True)


def _complain(text: str, code: int) -> int:
    click.echo(f"error: {text}", err=True)
    return code


def _changes(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, as a table."""
    from metaloss.settings import assignment, merged

    given = {k: v for k, v in flags.items() if v is not None}
    named = {k: {"kind": given[k]} for k in ("genome", "strategy") if given.get(k)}
    plain = ("generations", "tasks_per_generation", "objective", "seed", "device")
    table: dict[str, Any] = {**named, **{k: given[k] for k in plain if k in given}}
    if flags["tasks"]:
        table["tasks"] = list(flags["tasks"])
    sizes = {k: given[k] for k in ("mu", "lambda_") if k in given}
    inner = {"strategy": sizes} if sizes else {}
    start = {"genome": {"start": given["init"]}} if given.get("init") else {}
    return merged(table, inner, start, *(assignment(text) for text in flags["assignments"]))


def _table(config: Path | None, preset: str | None, changes: dict[str, Any]) -> dict[str, Any]:
    """Preset, configuration file and flags, laid over each other in this order."""
    from metaloss import settings

    base = settings.read(config) if config else {}
    if "tasks" in changes:
        base.pop("families", None)
    given = settings.merged(base, changes)
    return settings.merged(settings.preset(preset or "quick"), given)


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise SettingsError(f"--time-limit takes a number and s, m or h, got '{text}'") from None


def _dry_run(chosen: Any, as_json: bool) -> None:
    from metaloss import report, settings

    estimate = report.estimate(chosen)
    if as_json:
        click.echo(json.dumps({"settings": chosen.table(), "estimate": estimate}, indent=1))
        return
    click.echo(settings.toml(chosen).decode())
    click.echo(f"# {report.estimate_text(estimate)}")  # all of it is a file that --config takes


@contextlib.contextmanager
def _interruptible(console: Any, again: Callable[[], str] | None = None) -> Iterator[Any]:
    """The first Ctrl-C or SIGTERM drops the chunk in hand and leaves a run that resumes; a second one exits at once.

    So does the first, where there is no run yet to leave. A signal that is ignored stays ignored. `again` gives the
    command that goes on.
    """
    received: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if received or console.folder is None:
            os._exit(128 + number)
        received.append(number)

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
    old = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield lambda: bool(received)
    except Interrupted:
        command = again() if again else f"metaloss evolve --resume {console.folder}"
        console.errors.print(f"interrupted; go on with: {command}", markup=False)
        raise click.exceptions.Exit(128 + received[0]) from None
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
