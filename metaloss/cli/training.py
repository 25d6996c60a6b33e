"""The command that trains full-size networks: train."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from metaloss.cli import _options
from metaloss.cli._command import Command, announce, interruptible
from metaloss.cli._terminal import echo, echo_json
from metaloss.errors import SettingsError

# Flags whose values stand in the settings under their own names.
PLAIN = (
    *(
        "model",
        "data",
        "size",
        "epochs",
        "steps",
        "batch",
        "optimiser",
        "lr",
        "momentum",
        "weight_decay",
    ),
    *(
        "schedule",
        "warmup",
        "subset",
        "seeds",
        "seed",
        "precision",
        "device",
        "devices",
        "pretrained",
        "tensorboard",
        "sampling",
        "thresholds",
        "prior_correction",
        "metric",
        "features",
        "groups",
    ),
)


@click.command(cls=Command)
@click.option(
    "--loss", multiple=True, metavar="RUN|LOSS", help="One or several losses (ce), trained alike."
)
@click.option("--model", metavar="NAME", help="metaloss list models (resnet9).")
@click.option("--data", metavar="NAME|folder:PATH|voc:PATH", help="A data source (fashionmnist).")
@click.option(
    "--features",
    metavar="torchvision:NAME|timm:NAME|file:PATH",
    help="Train a head, linear or mlp, on a frozen network's features.",
)
@_options.groups
@click.option(
    "--protocol", metavar="NAME", help="A paper's settings (metaloss list protocols); flags win."
)
@click.option(
    "--epochs", type=int, help="How long to train (10; more where images are few: 300 steps)."
)
@click.option("--steps", type=int, help="The same in steps.")
@click.option(
    "--batch", type=int, help="Images per step (128, at most a tenth of the training images)."
)
@click.option(
    "--optimiser", metavar="sgd|adam|adamw", help="The optimiser (sgd, with Nesterov's momentum)."
)
@click.option(
    "--lr",
    type=float,
    help="The highest learning rate (0.1; adam, adamw: 0.001; less where images are few).",
)
@click.option(
    "--rates",
    multiple=True,
    type=float,
    metavar="0.03 0.1 …",
    help="Rates to choose from, per loss.",
)
@click.option("--momentum", type=float, help="Of sgd (0.9).")
@click.option("--weight-decay", type=float, help="Of every parameter (0).")
@click.option(
    "--schedule", metavar="constant|one_cycle|step|plateau", help="The rate's course (one_cycle)."
)
@click.option("--warmup", type=int, help="Steps of one_cycle's way up (a tenth).")
@click.option(
    "--augment",
    metavar="none|shift|base|cutout|mixup|randaug|all",
    help="What happens to images (none).",
)
@_options.metric
@click.option(
    "--class-weights",
    metavar="balanced|POWER",
    help="Weigh images by their class's share to minus this power; balanced: 1.",
)
@click.option(
    "--sampling", metavar="shuffled|balanced", help="What batches are drawn from (shuffled)."
)
# None where a flag is not given: False would win over the setting of a file.
@click.option(
    "--thresholds",
    is_flag=True,
    default=None,
    help="Choose a threshold for every class on the validation images.",
)
@click.option(
    "--prior-correction",
    type=float,
    metavar="TAU",
    help="After training, subtract TAU times the log of each class's share from its logit.",
)
@click.option("--subset", metavar="50-per-class", help="Train on so many images of every class.")
@click.option("--size", type=int, help="Side of the images as the model sees them, in pixels.")
@click.option(
    "--pretrained",
    is_flag=True,
    default=None,
    help="Start from torchvision's weights; downloads them.",
)
@click.option("--seeds", type=int, help="Trainings of every loss, with consecutive seeds (1).")
@_options.seed
@click.option(
    "--precision", metavar="32-true|16-mixed|bf16-mixed", help="Lightning's name of the numbers."
)
@_options.device
@click.option("--devices", type=int, help="How many of them train one network together (1).")
# None where a flag is not given: False would win over the setting of a file.
@click.option("--tensorboard", is_flag=True, default=None, help="Also write TensorBoard's files.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A training's config.toml; flags win."
)
@_options.setting("augment.patch=8")
@click.option(
    "--resume", metavar="DIR", help="Go on with this training: a path, or a name under --out."
)
@click.option(
    "--allow-changes", is_flag=True, help="Resume although versions, device or data are others."
)
@click.option(
    "--contact-sheet", metavar="F.png", help="Draw the augmentations on training images, and stop."
)
@_options.runs
@_options.out("trainings", "training")
@_options.summary_json
@_options.quiet
@_options.plugins
@_options.debug
def train(
    protocol: str | None,
    config: Path | None,
    resume: str | None,
    allow_changes: bool,
    contact_sheet: str | None,
    runs: str,
    out: str,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Train full-size networks with any loss. Several losses are trained alike and set side by
    side.
    """
    from metaloss.console import Console

    console = Console(quiet or as_json)
    with (
        console,
        interruptible(console, lambda: f"metaloss train --resume {console.folder}") as stop,
    ):
        from metaloss.training import fitting

        changes = _changes(flags)
        callbacks = {"reporter": console, "stop": stop}
        if resume:
            if protocol or config or contact_sheet:
                raise SettingsError(
                    "--resume keeps the training's settings; no --protocol, --config, "
                    "--contact-sheet"
                )
            fits = fitting.go_on(
                resume, settings=changes, out=out, allow_changes=allow_changes, **callbacks
            )
        else:
            settings = _settings(protocol, config, changes)
            if contact_sheet:
                return _draw(settings, contact_sheet)
            for spec in flags["loss"]:
                announce(spec)
            fits = fitting.start(settings, Path(out), runs=runs, **callbacks)
    if as_json:
        echo_json({"folder": str(fits.folder), **fits.summary})


def _changes(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given, as a table."""
    from metaloss.core.config import parse_assignment
    from metaloss.training.settings import over, unambiguous

    table: dict[str, Any] = {name: flags[name] for name in PLAIN if flags[name] is not None}
    many: dict[str, Sequence[Any]] = {
        "loss": [x.strip() for x in flags["loss"]],
        "rates": list(flags["rates"]),
    }
    table |= {name: values for name, values in many.items() if values}
    if weights := flags["class_weights"]:
        table["class_weights"] = weights if weights == "balanced" else _power(weights)
    if flags["augment"]:
        table["augment"] = {"kind": flags["augment"]}
    assigned = [parse_assignment(x) for x in flags["assignments"]]
    unambiguous({name: value for one in (table, *assigned) for name, value in one.items()})
    return over(table, *assigned)


def _power(text: str) -> float:
    """The power of the classes' shares.

    Raises:
        SettingsError: it is no number.
    """
    try:
        return float(text)
    except ValueError:
        raise SettingsError(
            f"--class-weights takes balanced or a number from 0 to 4, got '{text}'"
        ) from None


def _settings(protocol: str | None, config: Path | None, changes: dict[str, Any]) -> Any:
    """Protocol, configuration file and flags, laid over each other in this order."""
    from metaloss.search import settings
    from metaloss.training.settings import over, resolve
    from metaloss.training.settings import protocol as named

    base = settings.read(config) if config else {}
    return resolve(named(protocol, base, changes) if protocol else over(base, changes))


def _draw(settings: Any, path: str) -> None:
    """Write a contact sheet of the augmentations.

    Raises:
        SettingsError: the file's name is not a PNG's.
    """
    if not path.lower().endswith(".png"):
        raise SettingsError(f"--contact-sheet writes a PNG: F.png, got '{path}'")
    # Imported after the check: a wrong name is refused at once.
    import torch

    from metaloss import storage
    from metaloss.core.streams import Stream
    from metaloss.training.figures import contact_sheet
    from metaloss.training.images import open_images

    if settings.features:
        raise SettingsError("--contact-sheet draws images, and features take their place here")
    # A sheet of a few images needs no GPU.
    images = open_images(settings, torch.device("cpu"))
    storage.write(
        Path(path), contact_sheet(images, settings.augment, Stream(settings.seed).at("sheet"))
    )
    echo(f"wrote {path}")
