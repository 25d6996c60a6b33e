"""The options that several commands take, each a decorator.

The options of one command alone stand at that command.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import click

from metaloss.core import plugins as folders
from metaloss.core.config import merge_tables, split_settings

tasks = click.option(
    "--tasks",
    multiple=True,
    metavar="NAME|PATH.toml|folder:PATH",
    help="One or several task families.",
)
generations = click.option("--generations", type=int, help="How many generations to run.")
seed = click.option("--seed", type=int, help="Of every random draw.")
metric = click.option(
    "--metric",
    metavar="NAME",
    # A table, so that `--set metric.at=0.9` adds to it.
    callback=lambda _context, _option, name: name if name is None else {"kind": name},
    help="What losses are scored by (accuracy; metaloss list metrics).",
)
groups = click.option(
    "--groups",
    metavar="FILE.csv",
    help="Images and their groups, such as patients; none is torn apart.",
)
device = click.option("--device", metavar="auto|cpu|cuda", help="Where classifiers train.")
engine = click.option(
    "--engine", metavar="local|ray", help="Where trainings run: here (local), or on a Ray cluster."
)
address = click.option(
    "--address",
    metavar="local|auto|HOST:PORT",
    help="With --engine ray: the cluster; by default one that is started here.",
)
json = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
summary_json = click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else."
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Print a line for every generation.")
debug = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")

runs = click.option(
    "--runs", default="runs", show_default=True, help="Where runs are looked for by name."
)


def _search(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value:
        context.with_resource(folders.add_folders(value.split(os.pathsep)))
        folders.folders()  # which refuses what is no folder of parts


plugins = click.option(
    "--plugins",
    callback=_search,
    expose_value=False,
    metavar="PATH",
    help="A folder of your own genomes/, strategies/ …",
)


def split_engine(
    table: Mapping[str, Any], engine: str | None, address: str | None
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Settings without those of the engine, and these, None where nothing is said of it.

    Args:
        table: what --set and files say; they may hold a table `engine`.
        engine: its kind, as the option says it.
        address: of its cluster, likewise.
    """
    flags = {key: x for key, x in (("kind", engine), ("address", address)) if x is not None}
    said, rest = split_settings(table, ("engine",))
    tables = [{"kind": x} if isinstance(x, str) else x for x in said.values()]
    return rest, merge_tables(*tables, flags) or None


Option = Callable[[Callable[..., Any]], Callable[..., Any]]


def setting(example: str) -> Option:
    """`--set`, as `assignments`."""
    return click.option(
        "--set", "assignments", multiple=True, metavar=example, help="Any setting by its path."
    )


def out(default: str, what: str) -> Option:
    """`--out`, the folder that the run's or the report's own is made in."""
    return click.option(
        "--out",
        default=default,
        show_default=True,
        help=f"The folder that the {what}'s folder is made in.",
    )
