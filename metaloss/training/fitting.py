"""`fit` trains a network with a loss, `fit_all` with several losses side by side."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from metaloss import storage
from metaloss.core import installation
from metaloss.core.devices import resolve_device
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.leakage import data_overlap, origin_of
from metaloss.data import places
from metaloss.data.datasets import Dataset
from metaloss.data.places import features_role, is_path_source
from metaloss.errors import SettingsError
from metaloss.storage.resuming import ResumableFolder
from metaloss.training import folders, report, results
from metaloss.training.corrections import check_prior_correction
from metaloss.training.defaults import decided
from metaloss.training.images import TrainingImages, open_images
from metaloss.training.interruption import resumable
from metaloss.training.losses import (
    check_class_weights,
    check_past,
    loss_label,
    name_losses,
    read_losses,
    save_losses,
)
from metaloss.training.models import check_model
from metaloss.training.results import Fits, Fitted
from metaloss.training.segmenters import segments
from metaloss.training.session import TrainingSession
from metaloss.training.settings import GIVEN, Training, over, resolve
from metaloss.training.settings import protocol as preset
from metaloss.training.targets import CLASSIFICATION, SEGMENTATION


def fit(
    loss: Any = None,
    model: Any = None,
    data: Any = None,
    *,
    protocol: str | None = None,
    out: str | Path = "trainings",
    resume: str | Path | None = None,
    **others: Any,
) -> Fitted:
    """Train a network with a loss: `seeds` times, each tested once, at the end.

    Ctrl-C leaves a folder that goes on where it stopped: `fit(resume=FOLDER)`.

    Args:
        loss: a name, path or formula, or any module that takes logits and targets; cross-entropy by
            default.
        model: the name of one of ours or torchvision's, `resnet9` by default; a module, which every
            seed starts from; or a function without arguments that makes one.
        data: a data source's name, `fashionmnist` by default, or folder:PATH; or images [N K H W]
            and labels; a data set of pairs like torchvision's, or one to train and one to test on.
        protocol: a paper's settings by name; what is given here wins.
        out: the folder that the training's folder is made in.
        resume: go on with this folder; what was handed over as an object is handed over again, and
            `data` may say where the images of a folder lie now.
        others: any field of `metaloss.training.settings.Training`, where `groups` may also be names
            or numbers, one an image; `runs`, where evolved losses are looked for; `reporter` and
            `stop`, as for `metaloss.evolve`; `allow_changes`, to resume elsewhere.

    Raises:
        SettingsError: a setting that cannot be, or Lightning is not installed.
        DataError: images that are missing or do not fit.
        MetalossError: the loss became infinite or not a number.
    """
    losses = None if loss is None else [loss]
    fits = fit_all(losses, model, data, protocol=protocol, out=out, resume=resume, most=1, **others)
    return fits.losses[0]


def fit_all(
    losses: Sequence[Any] | None = None,
    model: Any = None,
    data: Any = None,
    *,
    protocol: str | None = None,
    out: str | Path = "trainings",
    runs: str | Path = "runs",
    resume: str | Path | None = None,
    allow_changes: bool = False,
    reporter: Reporter | None = None,
    stop: Callable[[], bool] = lambda: False,
    most: int | None = None,
    **settings: Any,
) -> Fits:
    """Train a network with each of several losses, on the same images and from the same initial
    weights.

    Arguments and errors are those of `fit`; `most` is the number of losses above which it refuses.
    """
    needed()
    if isinstance(groups := settings.get("groups"), os.PathLike):
        settings["groups"] = groups = os.fspath(groups)
    objects = _objects(model=model, data=data, groups=groups)
    if "groups" in objects:
        settings["groups"] = GIVEN
    shared: dict[str, Any] = {
        "losses": losses,
        "objects": objects,
        "reporter": reporter or Reporter(),
        "stop": stop,
    }
    if resume is not None:
        settings |= {"data": data} if isinstance(data, str) else {}
        return go_on(resume, out=out, allow_changes=allow_changes, settings=settings, **shared)
    for key, value in (("model", model), ("data", data)):
        if value is not None:
            settings[key] = GIVEN if key in objects else value
    if losses is not None:
        settings["loss"] = _distinct([loss_label(x) for x in losses])
    training = resolve(preset(protocol, settings) if protocol else settings)
    if most is not None and len(training.loss) > most:
        raise SettingsError(
            f"fit trains one loss, got {len(training.loss)}; metaloss.fit_all takes several"
        )
    return start(training, Path(out), runs=runs, **shared)


def start(
    settings: Training,
    out: Path,
    *,
    losses: Sequence[Any] | None = None,
    runs: str | Path = "runs",
    objects: dict[str, Any] | None = None,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> Fits:
    """Make a new folder for these settings, and train (arguments and errors: as for `fit_all`)."""
    needed()
    objects = objects or {}
    if "model" not in objects:
        check_model(settings.model)
    specs = list(losses or settings.loss)
    modules = [loss_io.load(x, runs) for x in specs]
    device = resolve_device(settings.device)
    images = open_images(settings, device, objects.get("data"), reporter, objects.get("groups"))
    if "model" not in objects:
        _check_target(settings.model, images)
    named = name_losses(settings.loss, modules, images.classes)
    check_class_weights(named, settings)
    check_past(named, settings)
    check_prior_correction(named, settings)
    # Some defaults depend on how many images there are to train on.
    rows = images.training_rows(settings.per_class, Stream(settings.seed))
    settings = decided(settings, len(rows), images.feature_count)
    session = TrainingSession(
        Path(), settings, images, named, device, objects.get("model"), reporter, stop
    )
    session.check()
    _warn_of_leaks(session, specs, Path(runs))
    session.folder = folders.create(out, settings, images, sys.argv, device)
    by_name = [x for x, spec in zip(named, specs, strict=True) if isinstance(spec, str | Path)]
    save_losses(session.folder, by_name)
    reporter.on_images(images.dataset, settings.data)
    return _run(session)


def _check_target(model: str, images: TrainingImages) -> None:
    """Raise a SettingsError where a model tells images apart and the data pixels, or reversed."""
    told_apart = SEGMENTATION if segments(model) else CLASSIFICATION
    if told_apart.labelled != images.target.labelled:
        raise SettingsError(
            f"{images.dataset.name} has classes of {images.target.labelled}, and {model} tells "
            f"{told_apart.labelled} apart"
        )


def go_on(
    spec: str | Path,
    *,
    losses: Sequence[Any] | None = None,
    out: str | Path = "trainings",
    allow_changes: bool = False,
    objects: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> Fits:
    """Go on with a folder as if it had never stopped.

    Args:
        spec: the folder's path, or its name under `out`.
        losses: must be those of the folder where they are given.
        out: the folder of trainings.
        allow_changes: go on although versions, device or data are others.
        objects: the model, the data and their groups that were handed over as objects, by "model",
            "data" and "groups".
        settings: must be those of the folder; its data may have moved.
        reporter: is told of every event.
        stop: asked before every step.

    Raises:
        SettingsError: there is none; a setting differs; or what was handed over as an object is not
            handed over again.
        RunInUse: another process trains there.
        DamagedFile: a file of it does not check out.
    """
    needed()
    folder, kept = folders.find(spec, Path(out))
    objects = objects or {}
    changes = dict(settings or {})
    both_paths = is_path_source(str(changes.get("data", ""))) and is_path_source(kept.data)
    moved = [changes.pop("data")] if both_paths else []
    if moved and is_path_source(kept.features):
        moved.append(changes.pop("features", kept.features))
    if losses:
        changes["loss"] = [loss_label(x) for x in losses]
    training_folder = ResumableFolder(folder, "training")
    training_folder.check_settings(kept.table(), resolve(over(kept.table(), changes)).table())
    _check_objects(folder, kept, objects)
    device = resolve_device(kept.device)
    sources = places.sources_of("data", kept.data, kept.features)
    where = places.find_places(folder, sources, moved, f"metaloss train --resume {folder} --data")
    now = replace(
        kept, data=where["data"], features=where.get(features_role("data"), kept.features)
    )
    # The groups as they were when the training began, whatever has become of their file.
    groups = objects.get("groups", folders.kept_groups(folder))
    images = open_images(now, device, objects.get("data"), reporter, groups)
    named = name_losses(kept.loss, _modules(folder, kept, losses), images.classes)
    training_folder.check_conditions(folders.conditions(images, device), allow_changes)
    places.keep_places(folder, where)
    session = TrainingSession(
        folder, kept, images, named, device, objects.get("model"), reporter, stop
    )
    if kept.devices > 1 and folders.summary(folder) is None:
        session.check()
    return _run(session)


def _check_objects(folder: Path, settings: Training, objects: Mapping[str, Any]) -> None:
    """Raise a SettingsError unless what was handed over as an object is handed over again, and
    nothing else.
    """
    for name in ("model", "data"):
        if (getattr(settings, name) == GIVEN) != (name in objects):
            need = (
                f"was handed a {name} as an object: hand it over again"
                if name not in objects
                else f"keeps its {name}"
            )
            raise SettingsError(f"{folder} {need}")


def _modules(folder: Path, settings: Training, losses: Sequence[Any] | None) -> list[nn.Module]:
    """The losses of a folder: the modules that are handed over, and those that it keeps."""
    specs = losses or [None] * len(settings.loss)
    if all(isinstance(x, nn.Module) for x in specs):
        return list(specs)
    kept = read_losses(folder, settings.loss)
    return [x if isinstance(x, nn.Module) else kept[i] for i, x in enumerate(specs)]


def _warn_of_leaks(session: TrainingSession, specs: Sequence[Any], runs: Path) -> None:
    """Warn of losses that have learned from test images.

    To train with them is fair; to judge them by these images is not.
    """
    images = session.images
    if not isinstance(images.dataset, Dataset):
        return
    for loss, spec in zip(session.losses, specs, strict=True):
        if not isinstance(loss.module, Criterion):
            continue
        origin = origin_of(spec, loss.module, runs)
        overlap = data_overlap(origin, loss.module, images.dataset, images.shares.test)
        if overlap.refusal:
            session.reporter.on_warning(
                f"{loss.label} {overlap.refusal}, so its test accuracy is too optimistic"
            )


def needed() -> None:
    """Raise a SettingsError where Lightning is not installed."""
    if find_spec("lightning") is None:
        raise SettingsError(f"full-size training needs Lightning: {installation.command('train')}")


def _run(session: TrainingSession) -> Fits:
    """Train, or read back what is trained."""
    folder = session.folder
    with storage.Lock(folder), resumable(session, f"metaloss.fit(resume={str(folder)!r})"):
        table = folders.summary(folder)
        for text in session.cautions() if table is None else ():
            session.reporter.on_warning(text)
        session.reporter.on_fit_start(session)
        if table is None:
            session.run()
            # Read back: what is returned is what a finished folder gives.
            table = folders.summary(folder)
        assert table is not None
        paths = sorted((folder / "state").glob("*/done.json"))
        records = [record for path in paths if (record := folders.saved(path))]
        network = session.network
        if network is not None and not isinstance(network, nn.Module):
            network = network()
        fits = results.fits(folder, records, table, network)
        if not storage.is_file(folder / report.FILE):
            report.write(fits, session.images)
    session.reporter.on_fit_end(fits)
    return fits


def _objects(**arguments: Any) -> dict[str, Any]:
    """What is handed over as an object instead of a name."""
    return {key: x for key, x in arguments.items() if x is not None and not isinstance(x, str)}


def _distinct(labels: list[str]) -> list[str]:
    """Labels, with a number behind those that came before."""
    return [
        x if x not in labels[:i] else f"{x} #{1 + labels[:i].count(x)}"
        for i, x in enumerate(labels)
    ]
