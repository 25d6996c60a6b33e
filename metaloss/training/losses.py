"""The losses of a training: read, named, and kept in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.loss import _WeightedLoss

from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion, clock_readers, past_readers
from metaloss.data.datasets.voc import Scenes
from metaloss.errors import SettingsError
from metaloss.losses.base import past_refused
from metaloss.losses.prior import class_terminals
from metaloss.storage.folders import file_name
from metaloss.training.images import TrainingImages
from metaloss.training.settings import Training
from metaloss.training.sources import Rows


@dataclass(frozen=True, eq=False)
class NamedLoss:
    """A loss, under the name that tables show and the one that files have."""

    label: str
    slug: str
    module: nn.Module


def name_losses(
    labels: Sequence[str], losses: Sequence[nn.Module], classes: int
) -> list[NamedLoss]:
    """Losses under their labels, fit for so many classes.

    Raises:
        SettingsError: one is made for another number of classes.
    """
    named: list[NamedLoss] = []
    for label, loss in zip(labels, losses, strict=True):
        if isinstance(loss, Criterion) and loss.classes not in (None, classes):
            raise SettingsError(
                f"{label} works for {loss.classes} classes alone, and the data has {classes}"
            )
        stem = file_name(label, "loss", 40)
        names = [stem, *(f"{stem}-{n}" for n in range(2, len(labels) + 2))]
        taken = {earlier.slug for earlier in named}
        named.append(NamedLoss(label, next(x for x in names if x not in taken), loss))
    return named


def told_of_classes(loss: nn.Module, images: TrainingImages, rows: Rows) -> nn.Module:
    """The loss, told how many of these images each class has, where it reads that.

    One that was told by its owner stays as it is, and so does one for the classes of pixels, which
    are not counted.
    """
    if not isinstance(loss, Criterion) or not loss.reads_prior or loss.prior is not None:
        return loss
    if isinstance(images.dataset, Scenes):
        return loss
    return loss.fit_prior(images.dataset.labels[rows], images.classes)


def at_last_step(loss: nn.Module, steps: int) -> nn.Module:
    """The loss, told that a training of so many steps is at its last, where it sees that."""
    for reader in clock_readers(loss):
        reader.at(steps - 1, steps)
    return loss


def check_class_weights(losses: Sequence[NamedLoss], settings: Training) -> None:
    """Say which losses cannot be trained with what the settings do about uneven classes.

    Raises:
        SettingsError: a loss makes up for them already, has weights of its own, or cannot be given
            any.
    """
    balanced = settings.sampling == "balanced"
    if not (settings.class_power or balanced):
        return
    what = "sampling = 'balanced'" if balanced else "class_weights"
    for loss in losses:
        module = loss.module
        if isinstance(module, Criterion) and module.reads_prior:
            raise SettingsError(
                f"{what}: {loss.label} makes up for uneven classes itself, and would do it twice: "
                "leave one of them out"
            )
        if balanced:
            continue
        if not isinstance(module, Criterion | _WeightedLoss):
            raise SettingsError(
                f"{what}: {loss.label} is a module of your own, which is weighed where it is made"
            )
        if module.weight is not None:
            raise SettingsError(f"{what}: {loss.label} has weights of its own: leave one out")


def check_past(losses: Sequence[NamedLoss], settings: Training) -> None:
    """Refuse a loss that reads what was predicted for an image before, where that cannot be shown.

    Raises:
        SettingsError: says why not.
    """
    for loss in losses:
        if past_readers(loss.module) and settings.past_obstacle:
            raise past_refused("this training", settings.past_obstacle)


def weighted(loss: nn.Module, images: TrainingImages, rows: Rows, power: float) -> nn.Module:
    """The loss with images weighed by their class's share of these to a power; 0: as it is."""
    if not power:
        return loss
    assert not isinstance(images.dataset, Scenes)
    weights = class_weights(images.dataset.labels[rows], images.classes, power)
    if isinstance(loss, Criterion):
        return loss.with_options(weight=weights)
    loss.register_buffer("weight", weights)
    return loss


def class_weights(labels: Tensor, classes: int, power: float) -> Float[Tensor, " C"]:
    """(C·π)^-power of every class, π its share: 1 for a class of average size."""
    counts = labels.bincount(minlength=classes).float()
    result: Tensor = (-power * class_terminals(counts)["logprior"]).exp()
    return result


def loss_label(spec: Any) -> str:
    """What a loss is called in the settings."""
    if isinstance(spec, str | Path):
        return str(spec).strip()
    loss = loss_io.load(spec)
    if isinstance(loss, Criterion):
        return str(loss.about.get("name") or loss.describe())
    return type(loss).__name__


def save_losses(folder: Path, losses: Sequence[NamedLoss]) -> None:
    """Write the losses that files can hold, so that the folder stands on its own."""
    (folder / "losses").mkdir(exist_ok=True)
    for loss in losses:
        if isinstance(loss.module, Criterion) and type(loss.module) in loss_io.WRITTEN:
            loss_io.save(
                folder / "losses" / loss.slug,
                loss.module,
                f"# {loss.label}\n\nA loss that networks were trained with.\n",
            )


def read_losses(folder: Path, labels: Sequence[str]) -> list[nn.Module]:
    """The losses of a folder, as they were kept there."""
    return [read_loss(folder, x) for x in name_losses(labels, [nn.Identity()] * len(labels), 0)]


def read_loss(folder: Path, loss: NamedLoss) -> nn.Module:
    """The loss of a folder that goes by these names.

    Raises:
        SettingsError: it was not kept, and its label is no loss's name.
        DamagedFile: its files do not check out.
    """
    path = folder / "losses" / loss.slug
    return loss_io.load(path if (path / "loss.json").is_file() else loss.label)
