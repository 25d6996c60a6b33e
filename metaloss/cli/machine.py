"""The commands that look after this machine: data fetch, data verify, doctor."""

from collections.abc import Sequence

import click

from metaloss.cli import _options
from metaloss.cli._command import Command
from metaloss.cli._terminal import Group, echo, echo_json
from metaloss.core.config import merge_tables, parse_assignment
from metaloss.errors import MetalossError


@click.group(cls=Group)
def data() -> None:
    """Download a data set, or check the one that is here."""


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
