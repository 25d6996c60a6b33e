"""Losses on disk and by name: how they are written, and what a name, a path or a formula means."""

import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import nn

from metaloss import storage
from metaloss.core import registry
from metaloss.core.formatting import printable
from metaloss.criterion import loss_files
from metaloss.criterion.base import Criterion
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.genome import GenomeCriterion
from metaloss.criterion.no_formula import (
    BatchCriterion,
    ImageCriterion,
    NamedCriterion,
    named_criterion,
)
from metaloss.data import image_record
from metaloss.data.image_record import ImageRecord
from metaloss.errors import SettingsError
from metaloss.losses import zoo
from metaloss.losses.language.formula import Formula, reads_a_prediction

SHIPPED = Path(__file__).parent / "shipped"  # losses that come with the package, a folder each
WRITTEN_COSTS = 150  # classes of the most costs that a loss.json has room for
WRITTEN = (FormulaCriterion, GenomeCriterion, BatchCriterion, ImageCriterion)  # by `save`


def save(folder: Path, criterion: Criterion, card: str, images: ImageRecord | None = None) -> None:
    """Write a loss to be shared: `loss.json`, its weights if it has any and `card.md`, each whole
    or not at all.

    Beside them goes `images.json`, the record of the images that it has learned from, where that is
    known.

    Args:
        folder: made where it is not there.
        criterion: the loss.
        card: what a reader should know about it, in Markdown.
        images: those that it has learned from; those of the folder that it was read from where
            None.

    Raises:
        SettingsError: its costs are of more classes than a loss.json has room for.
    """
    if criterion.costs is not None and len(criterion.costs) > WRITTEN_COSTS:
        raise SettingsError(
            f"{folder}: loss.json has room for the costs of {WRITTEN_COSTS} classes, not of "
            f"{len(criterion.costs)}: save the loss with_options(costs=None), and give them to "
            "metaloss.load"
        )
    images = images or images_of(criterion)
    folder.mkdir(exist_ok=True)
    table: dict[str, Any]
    if isinstance(criterion, GenomeCriterion):
        genome = criterion.genome
        candidate = criterion.candidate
        # safetensors takes contiguous tensors only.
        tensors = {
            field.name: getattr(candidate, field.name).cpu().contiguous()
            for field in fields(candidate)
        }
        weights = save_tensors(tensors)
        _replace_weights(folder, weights)
        digest = {"weights_sha256": storage.sha256(weights)}
        table = {"kind": registry.kind(genome), "genome": registry.table(genome), **digest}
    elif isinstance(criterion, NamedCriterion):
        table = {"kind": criterion.loss.name, **asdict(criterion.loss)}
    else:
        assert isinstance(criterion, FormulaCriterion)
        table = {"kind": "formula", "formula": str(criterion.formula)}
    for name in ("prior", "costs"):
        if (numbers := getattr(criterion, name)) is not None:
            table[name] = numbers.tolist()
    if criterion.steps is not None:
        table["steps"] = criterion.steps
    if criterion.normalise:
        table["normalise"] = True
    storage.write(folder / "card.md", card.encode())
    if images is not None:
        image_record.write(folder, images)
    # Last, so that where loss.json is, everything else is, too.
    about = {"format": loss_files.FORMAT, **table, "about": criterion.about}
    storage.write_record(folder / "loss.json", about)


def _replace_weights(folder: Path, weights: bytes) -> None:
    """Write a loss's weights; at no instant do they lie beside another loss's description."""
    path = folder / "weights.safetensors"
    if storage.is_file(path) and path.read_bytes() == weights:
        return
    # After a kill between the two there is no description, and not that of other weights.
    (folder / "loss.json").unlink(missing_ok=True)
    storage.write(path, weights)


def load(
    spec: str | os.PathLike[str] | nn.Module | Formula,
    parent: str | os.PathLike[str] = "runs",
    **options: Any,
) -> nn.Module:
    """The loss that a name, a path or a formula means.

    Looked up in this order: a module is given back; a published loss by name, with parameters if
    wanted, or one that comes with the package; a path (of a run, a loss's folder or its
    `loss.json`); a run's name; a formula of y, p, logp and C.

    >>> load("focal(gamma=0.5)")
    Criterion(sum(-y * (1.0 - p) ** 0.5 * logp))

    Args:
        spec: what is meant; `./ce` is the path, where `ce` would be the name.
        parent: where runs are looked for by name.
        options: `weight`, `reduction`, `label_smoothing`, `ignore_index`, `normalise`, `prior`,
            `costs`, `steps`, as `Criterion.with_options` takes them; with none of them a loss is
            given back as it is.

    Raises:
        SettingsError: there is no such loss, or the run has none yet; a formula with a mistake, and
            where it is; options for a module that is not metaloss's, or that a loss does not see.
        DamagedFile: the files do not check out.
    """
    loss = _loss(spec, parent)
    if not options:
        return loss
    if not isinstance(loss, Criterion):
        raise SettingsError(
            f"{type(loss).__name__} is not metaloss's: give it its options where it is made"
        )
    return loss.with_options(**options)


def listed(losses: Any) -> list[Any]:
    """The losses of a list, or the only one where a single loss is given, as `load` takes it.

    Raises:
        SettingsError: it is neither.
    """
    if isinstance(losses, str | os.PathLike | nn.Module | Formula):
        return [losses]
    if not isinstance(losses, Iterable):
        raise SettingsError(f"expected losses in a list, got {printable(repr(losses)[:200])}")
    return list(losses)


def _loss(
    spec: str | os.PathLike[str] | nn.Module | Formula, parent: str | os.PathLike[str]
) -> nn.Module:
    """The loss that is meant, with the options that it has."""
    if isinstance(spec, nn.Module):
        return spec
    if isinstance(spec, Formula):
        return FormulaCriterion(spec)
    if not isinstance(spec, str | os.PathLike):
        found = printable(repr(spec)[:200])
        raise SettingsError(f"expected a loss: a name, a path, a formula or a module, got {found}")
    text = os.fspath(spec)
    if isinstance(spec, str) and zoo.published(text):
        return _published(text)
    if isinstance(spec, str) and text.strip().lower() in shipped():
        return loss_files.read(SHIPPED / text.strip().lower())
    for path in (Path(text), Path(parent) / text):
        if (loss := _at(path)) is not None:
            return loss
    if reads_a_prediction(text):
        return FormulaCriterion(Formula.parse(text))
    if "*" in text or text.lstrip().startswith("-"):
        # It is written like a formula: the parser names what it does not know.
        Formula.parse(text)
    raise SettingsError(
        f"no loss '{printable(text[:200])}': neither a published or shipped loss, a path, "
        f"a run under {parent} nor a formula of p or logp."
        f"{_suggestion(text[:200], Path(parent))}  (metaloss list losses)"
    )


def _suggestion(text: str, parent: Path) -> str:
    """The loss or run whose name is near, as a question."""
    known = [*zoo.names(), *shipped(), *storage.subfolders(parent)]
    return registry.suggestion("loss", Path(text).name if "/" in text else text, known)


def images_of(loss: nn.Module) -> ImageRecord | None:
    """Which images a loss has learned from, as the folder that it was read from tells; None: it
    does not.

    Raises:
        DamagedFile: the record does not check out.
    """
    folder = loss.folder if isinstance(loss, Criterion) else None
    return None if folder is None else image_record.read(folder)


def _published(spec: str) -> Criterion:
    """A published loss."""
    entry, parameters = zoo.named(spec)
    about = {"name": spec, "source": entry.source, "remarks": entry.remarks, "limits": entry.limits}
    about = {key: value for key, value in about.items() if value}
    if entry.form:
        return named_criterion(entry.build(**parameters), about)
    return FormulaCriterion(entry.formula(**parameters), about)


def shipped() -> list[str]:
    """The names of the evolved losses that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/loss.json"))


def named(spec: str) -> bool:
    """Whether this is the name of a loss, published or shipped, rather than of a path or a run."""
    return zoo.published(spec) or spec.strip().lower() in shipped()


def _at(path: Path) -> Criterion | None:
    """The loss that lies at a path; None: there is nothing."""
    if path.name == "loss.json" and storage.is_file(path):
        return loss_files.read(path.parent)
    for folder in (path, path / "loss"):
        if storage.is_file(folder / "loss.json"):
            return loss_files.read(folder)
    if storage.is_file(path / "config.toml"):
        raise SettingsError(f"{path} has no winner yet: metaloss evolve --resume {path}")
    return None
