"""The commands that ask what experiments can be trusted for: study rank."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from metaloss.cli import _options
from metaloss.cli._command import Command, announce, given_flags, interruptible
from metaloss.cli._terminal import Group, echo_json
from metaloss.core.config import merge_tables, parse_assignment
from metaloss.errors import SettingsError


@click.group(cls=Group)
def study() -> None:
    """Ask what an experiment can be trusted for."""


@study.command(cls=Command)
@click.option(
    "--losses",
    multiple=True,
    metavar="RUN|LOSS|random:N",
    help="What is trained under every setting.",
)
@click.option(
    "--settings",
    multiple=True,
    metavar="tasks:FAMILY|train:data=NAME,…",
    help="The cheap ones first.",
)
@click.option(
    "--rates",
    multiple=True,
    type=float,
    metavar="0.03 0.1 …",
    help="Rates to choose from, per loss.",
)
@click.option(
    "--best",
    type=int,
    help="How many losses count as the best (50, or the better half of fewer than 100).",
)
@click.option("--tasks", type=int, help="Meta-validation tasks that a task family scores on (32).")
@_options.seed
@_options.device
@_options.engine
@_options.address
@click.option("--config", type=click.Path(path_type=Path), help="A study's config.toml; flags win.")
@_options.setting("clusters=1")
@click.option(
    "--resume", metavar="DIR", help="Go on with this study: a path, or a name under --out."
)
@click.option(
    "--data", multiple=True, metavar="folder:PATH", help="With --resume: where images lie now."
)
@click.option(
    "--allow-changes", is_flag=True, help="Resume although versions, device or data are others."
)
@_options.runs
@_options.out("studies", "study")
@_options.summary_json
@_options.quiet
@_options.plugins
@_options.debug
def rank(
    assignments: Sequence[str],
    config: Path | None,
    resume: str | None,
    data: Sequence[str],
    allow_changes: bool,
    runs: str,
    out: str,
    as_json: bool,
    quiet: bool,
    engine: str | None,
    address: str | None,
    **flags: Any,
) -> None:
    """Say whether a cheap setting orders losses as a dear one does: Kendall's τ between
    settings.
    """
    from metaloss.console import Console

    console = Console(quiet or as_json)
    with (
        console,
        interruptible(console, lambda: f"metaloss study rank --resume {console.folder}") as stop,
    ):
        from metaloss.experiments import rank_study

        said, where = _options.split_engine(
            merge_tables(*map(parse_assignment, assignments)), engine, address
        )
        options = {"out": Path(out), "reporter": console, "stop": stop, "engine": where}
        if resume:
            if given_flags(flags) or said or config:
                raise SettingsError(
                    "--resume keeps the study's losses and settings; none can be given"
                )
            finished = rank_study.go_on(resume, data=data, allow_changes=allow_changes, **options)
        else:
            settings = _settings(flags, said, config, data)
            finished = rank_study.start(settings, runs=runs, **options)
    if as_json:
        echo_json({"folder": str(finished.folder), **finished.summary})


def _settings(
    flags: dict[str, Any], said: dict[str, Any], config: Path | None, data: Sequence[str]
) -> dict[str, Any]:
    """The settings of a new study, flags over its file.

    Args:
        flags: those that are settings.
        said: by --set.
        config: the file; None where there is none.
        data: what is of resumed studies alone, and refused here.

    Raises:
        SettingsError: data are given, or the file cannot be read.
    """
    from metaloss.search import settings

    if data:
        raise SettingsError(
            "--data says where the images of a resumed study lie; --settings names all others"
        )
    for spec in flags["losses"]:
        announce(spec)
    base = settings.read(config) if config else {}
    return merge_tables(base, given_flags(flags), said)
