"""The commands that look after data and this machine: data show, fetch, verify; doctor."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from metaloss.cli import _options
from metaloss.cli._command import Command
from metaloss.cli._terminal import Group, echo, echo_json
from metaloss.core.config import merge_tables, parse_assignment
from metaloss.errors import MetalossError


@click.group(cls=Group)
def data() -> None:
    """Look at a data set, download or check one."""


@data.command(cls=Command)
@click.argument("name", metavar="NAME|folder:PATH")
@_options.metric
@_options.setting("max_pixels=200_000_000")
@_options.out("inspections", "report")
@_options.summary_json
@_options.quiet
@_options.plugins
@_options.debug
def show(
    name: str,
    metric: dict[str, Any] | None,
    assignments: Sequence[str],
    out: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Look at data set NAME before anything is trained.

    Images per class, sizes, copies across classes and across training and test, damaged files, and
    what the classes' sizes mean for the metric; as text, and as a folder with a report, a bar chart
    and a contact sheet.
    """
    from metaloss.experiments.inspection import inspect

    table = merge_tables({"metric": metric} if metric else {}, *map(parse_assignment, assignments))
    chosen = table.pop("metric", None)
    report = inspect(name, metric=chosen, out=out, command=["metaloss", *sys.argv[1:]], **table)
    if as_json:
        echo_json({"folder": str(report.folder), **report.summary})
    elif not quiet:
        echo(str(report))
        files = sorted(path.name for path in report.folder.iterdir())
        echo(f"wrote {report.folder}/{{{', '.join(files)}}}")
    report.check()


@data.command(cls=Command)
@click.argument("name")
@_options.plugins
@_options.debug
def fetch(name: str) -> None:
    """Download data set NAME, or a network's weights: torchvision:NAME or timm:NAME.

    Data sets come into the user's data folder, weights into the cache of torch or timm.
    """
    from metaloss.data import datasets
    from metaloss.data.features import networks

    echo(networks.fetch(name) if networks.is_network(name) else datasets.fetch(name))


@data.command(cls=Command)
@click.argument("name")
@_options.setting("max_pixels=200_000_000")
@_options.plugins
@_options.debug
def verify(name: str, assignments: Sequence[str]) -> None:
    """Read and check every image and label of data set NAME."""
    from metaloss.core import registry
    from metaloss.data import datasets
    from metaloss.data.datasets._images import ImageOptions

    table = merge_tables(*map(parse_assignment, assignments))
    echo("\n".join(datasets.verify(name, registry.from_table(ImageOptions, table, "data verify"))))


@click.command(cls=Command)
@_options.json
@_options.debug
def doctor(as_json: bool) -> None:
    """Check the machine, and say what to do. Versions, device, data sets and extras."""
    from dataclasses import asdict

    from metaloss.cli.doctor import examine

    findings = examine()
    if as_json:
        echo_json([asdict(f) for f in findings])
    else:
        width = max(len(f.name) for f in findings)
        for f in findings:
            echo(
                f"{f.name:{width}}  {f.found}"
                + (f"\n{'':{width}}    {f.advice}" if f.advice else "")
            )
    # After the whole table: what is missing stands beside what is there.
    if any(f.fatal for f in findings):
        raise MetalossError("something that metaloss needs is missing; see above")
