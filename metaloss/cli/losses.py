"""The commands that look at losses and write them: show, export, list."""

from pathlib import Path

import click

from metaloss.cli import _options
from metaloss.cli._command import Command, announce
from metaloss.cli._terminal import echo, echo_json, warn


@click.command(cls=Command)
@click.argument("spec", metavar="RUN|LOSS")
@_options.runs
@_options.json
@_options.plugins
@_options.debug
def show(spec: str, runs: str, as_json: bool) -> None:
    """Describe a run or a loss, and draw its phenotype."""
    from metaloss.cli import showing

    announce(spec)
    table = showing.describe(spec, Path(runs))
    if as_json:
        return echo_json(table)
    echo(showing.text(table))


@click.command(cls=Command)
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
@_options.runs
@_options.plugins
@_options.debug
def export(spec: str, path: Path, runs: str) -> None:
    """Write a loss for use elsewhere. As Python that needs torch alone, LaTeX, a torch.export
    program or a folder.
    """
    from metaloss.criterion import export as exports

    announce(spec)
    exports.export(spec, path, runs)
    echo(f"wrote {path}")


@click.command("list", cls=Command)
@click.argument(
    "kind",
    metavar=(
        "tasks|losses|primitives|genomes|strategies|classifiers|metrics|data"
        "|runs|models|protocols|tables"
    ),
)
@click.argument("pattern", default="")
@_options.runs
@_options.json
@_options.plugins
@_options.debug
def list_(kind: str, pattern: str, runs: str, as_json: bool) -> None:
    """List what there is of a kind. PATTERN is a part of its name."""
    from metaloss.cli import listing

    rows = [row for row in listing.rows(kind, Path(runs)) if pattern.lower() in row["name"].lower()]
    if as_json:
        return echo_json(rows)
    if not rows:
        named = f" with '{pattern}' in their names" if pattern else ""
        # On stderr, so that a program that reads the list finds no line.
        warn(f"no {kind}{named}{f' under {runs}' if kind == 'runs' else ''}")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        echo(f"{row['name']:{width}}  {row['about']}", indent=width + 2)
