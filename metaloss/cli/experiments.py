"""The commands that ask which loss is better: compare, recommend, reproduce."""

from collections.abc import Sequence
from typing import Any

import click

from metaloss.cli import _options
from metaloss.cli._command import Command, announce, given_flags, interruptible
from metaloss.cli._terminal import echo, echo_json
from metaloss.core.config import merge_tables, parse_assignment


@click.command(cls=Command)
@click.argument("losses", nargs=-1, required=True, metavar="RUN|LOSS...")
@_options.tasks
@_options.metric
@click.option("--against", metavar="RUN|LOSS", help="What all are set beside (ce).")
@click.option(
    "--tune",
    metavar="rate|steps[+own]",
    help="Each loss's learning rate; or its number of steps, too; +own: and its own parameters.",
)
@click.option("--tuning-tasks", type=int, help="Meta-validation tasks of every family (64).")
@click.option("--test-tasks", type=int, help="Meta-test tasks of every family (300).")
@_options.seed
@_options.device
@_options.engine
@_options.address
@click.option(
    "--allow-seen", is_flag=True, help="Compare although a run has learned from test images."
)
@click.option(
    "--no-rivals",
    "rivals",
    flag_value=False,
    default=None,
    help="Leave out what is no loss: logistic regression, support vectors, trees …",
)
@_options.setting("inner.steps=40")
@_options.runs
@_options.out("compare", "report")
@click.option(
    "--name", default="", help="The report's folder; by default the families' names and the seed."
)
@_options.summary_json
@_options.quiet
@_options.plugins
@_options.debug
def compare(
    losses: Sequence[str],
    assignments: Sequence[str],
    runs: str,
    out: str,
    name: str,
    as_json: bool,
    quiet: bool,
    engine: str | None,
    address: str | None,
    **flags: Any,
) -> None:
    """Compare losses on held-out tasks. Each one is tuned, and a report is written."""
    from metaloss.console import Console

    with Console(quiet or as_json) as console, interruptible(console) as stop:
        from metaloss.experiments import comparison

        settings = merge_tables(given_flags(flags), *map(parse_assignment, assignments))
        settings, where = _options.split_engine(settings, engine, address)
        job = {"reporter": console, "stop": stop, "engine": where}
        options = {"out": out, "name": name, "runs": runs, **job}
        for spec in losses:
            announce(spec)
        # Stripped of the space that `Command` puts before a formula with a minus.
        result = comparison.start([spec.strip() for spec in losses], settings, **options)
    if as_json:
        echo_json({"folder": str(result.folder), **result.summary})


@click.command(cls=Command)
@click.option(
    "--data",
    required=True,
    metavar="folder:PATH|NAME",
    help="Images, one sub-folder per class; file:PATH, features and labels; or a family.",
)
@click.option(
    "--losses",
    multiple=True,
    metavar="RUN|LOSS",
    help="What to try beside ce; 'usual' are those tried if none.",
)
@_options.metric
@click.option(
    "--train", metavar="MODEL", help="Judge by real trainings of this network, not by episodes."
)
@click.option(
    "--augment", metavar="base|cutout|mixup|…", help="With --train: what happens to images (none)."
)
@click.option(
    "--pretrained",
    is_flag=True,
    default=None,
    help="With --train: start from torchvision's weights; downloads them.",
)
@click.option(
    "--classifier", metavar="NAME", help="What is trained (mlp; metaloss list classifiers)."
)
@click.option(
    "--shots", type=int, help="Training images of every class in a task; by default at most ten."
)
@click.option(
    "--tune",
    metavar="rate|steps[+own]",
    help="Each loss's learning rate; or its number of steps, too; +own: and its own parameters.",
)
@click.option(
    "--no-rivals",
    "rivals",
    flag_value=False,
    default=None,
    help="Leave out what is no loss: logistic regression, a prior correction …",
)
@click.option(
    "--features",
    metavar="torchvision:NAME|file:PATH|…",
    help="A frozen network's features in place of pixels; with --train linear or mlp.",
)
@_options.groups
@click.option("--folds", type=int, help="How many; by default five, fewer where images are few.")
@click.option("--certainty", type=float, help="Of the intervals (0.95).")
@click.option(
    "--tuning-tasks",
    type=int,
    help="Tasks that choose a loss, in each fold and on all images (16).",
)
@click.option("--test-tasks", type=int, help="Tasks that judge the choice, in each fold (40).")
@click.option(
    "--images", metavar="all|test", help="All; or those alone that no search learns from."
)
@_options.seed
@_options.device
@_options.engine
@_options.address
@click.option(
    "--allow-seen", is_flag=True, help="Try losses although they have learned from these images."
)
@_options.setting("inner.steps=100")
@_options.runs
@_options.out("recommend", "recommendation")
@click.option(
    "--name",
    default="",
    help="The recommendation's folder; by default the data's name and the seed.",
)
@_options.summary_json
@_options.quiet
@_options.plugins
@_options.debug
def recommend(
    losses: Sequence[str],
    assignments: Sequence[str],
    classifier: str | None,
    augment: str | None,
    runs: str,
    out: str,
    name: str,
    as_json: bool,
    quiet: bool,
    engine: str | None,
    address: str | None,
    **flags: Any,
) -> None:
    """Say which loss suits your images. By cross-validation, with what certainty, or that none
    beats cross-entropy.
    """
    from metaloss.console import Console

    console = Console(quiet or as_json)
    line = click.get_current_context().meta["line"]
    # The same command finds real trainings that were over.
    with console, interruptible(console, lambda: line, "for all folds") as stop:
        from metaloss.experiments import recommendation

        kinds = {"classifier": classifier, "augment": augment}
        tables = {name: {"kind": kind} for name, kind in given_flags(kinds).items()}
        settings = merge_tables(given_flags(flags), tables, *map(parse_assignment, assignments))
        settings, where = _options.split_engine(settings, engine, address)
        job = {"reporter": console, "stop": stop, "engine": where}
        options = {"out": out, "name": name, "runs": runs, **job}
        for spec in losses:
            announce(spec)
        # None instead of an empty list: then the usual losses are tried.
        result = recommendation.start(
            settings, [spec.strip() for spec in losses] or None, **options
        )
    if as_json:
        echo_json({"folder": str(result.folder), **result.summary})


@click.command(cls=Command)
@click.argument("table", metavar="TABLE")
@click.option(
    "--loss",
    multiple=True,
    metavar="RUN|LOSS",
    help="Rows of the table; of mln, what stands for its own.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME",
    help="Columns of the table; all by default.",
)
@click.option(
    "--run", is_flag=True, help="Train what is missing, and go on with what was interrupted."
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="model=convnet",
    help="What stands in for the paper's.",
)
@click.option("--seeds", type=int, help="Trainings of every loss.")
@_options.device
@click.option(
    "--trainings", default="trainings", show_default=True, help="Where full-size trainings are."
)
@click.option("--study", metavar="DIR", help="Of morgan-tau: a study, whatever its settings.")
@click.option(
    "--evolve", "anew", is_flag=True, help="Of mln: evolve its loss anew, by the default search."
)
@click.option(
    "--runs", default="runs", show_default=True, help="Where runs are made and looked for by name."
)
@_options.out("compare", "report")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, and nothing else.")
@_options.debug
def reproduce(
    table: str,
    loss: Sequence[str],
    run: bool,
    assignments: Sequence[str],
    seeds: int | None,
    device: str | None,
    anew: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print a paper's table beside ours. Says what was not run; the tables: metaloss list
    tables.
    """
    from metaloss.console import Console

    console = Console(as_json, brief=not run)
    line = click.get_current_context().meta["line"]
    # The same command finds trainings that were begun; an evolution is a run to resume.
    again = (lambda: line) if run else lambda: f"metaloss evolve --resume {console.folder}"
    with console, interruptible(console, again) as stop:
        from metaloss.experiments import reproduction

        flags_of_training = given_flags({"seeds": seeds, "device": device})
        settings = merge_tables(*map(parse_assignment, assignments), flags_of_training)
        places = {"folder": flags.pop("trainings"), "studies": "studies", **flags}
        options = {"reporter": console, "stop": stop, "run": run, "evolve": anew}
        losses = [spec.strip() for spec in loss]
        reproduced = reproduction.start(table, settings, loss=losses, **options, **places)
    if as_json:
        return echo_json(reproduced.plain())
    echo("\n".join(reproduction.lines(reproduced)))
