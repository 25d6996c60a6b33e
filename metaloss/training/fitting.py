"""`fit` trains a network with a loss, `fit_all` with several losses side by side."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
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
from metaloss.data.places import is_path_source
from metaloss.errors import Interrupted, SettingsError
from metaloss.training import folders, results
from metaloss.training.defaults import decided
from metaloss.training.folders import GIVEN
from metaloss.training.images import TrainingImages, open_images
from metaloss.training.losses import loss_label, name_losses, read_losses, save_losses
from metaloss.training.models import check_model
from metaloss.training.results import Fits, Fitted
from metaloss.training.segmenters import segments
from metaloss.training.session import TrainingSession
from metaloss.training.settings import Training, over, resolve
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
        others: any field of `metaloss.training.settings.Training`; `runs`, where evolved losses are
            looked for; `reporter` and `stop`, as for `metaloss.evolve`; `allow_changes`, to resume
            elsewhere.

    Raises:
        SettingsError: a setting that cannot be, or Lightning is not installed.
        DataError: images that are missing or do not fit.
        MetalossError: the loss became infinite or not a number.
    """
    losses = None if loss is None else [loss]
    found = fit_all(
        losses, model, data, protocol=protocol, out=out, resume=resume, most=1, **others
    )
    return found.losses[0]


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
    how: dict[str, Any] = {"reporter": reporter or Reporter(), "stop": stop}
    objects = _objects(model, data)
    if resume is not None:
        settings |= {"data": data} if isinstance(data, str) else {}
        return go_on(
            resume,
            losses=losses,
            out=out,
            allow_changes=allow_changes,
            objects=objects,
            settings=settings,
            **how,
        )
    named: dict[str, Any] = {
        key: GIVEN if key in objects else x
        for key, x in (("model", model), ("data", data))
        if x is not None
    }
    if losses is not None:
        named["loss"] = _distinct([loss_label(x) for x in losses])
    table = {**settings, **named}
    chosen = resolve(preset(protocol, table) if protocol else table)
    if most is not None and len(chosen.loss) > most:
        raise SettingsError(
            f"fit trains one loss, got {len(chosen.loss)}; metaloss.fit_all takes several"
        )
    return start(chosen, Path(out), losses=losses, runs=runs, objects=objects, **how)


def start(
    chosen: Training,
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
    given = objects or {}
    if "model" not in given:
        check_model(chosen.model)
    loaded = [loss_io.load(x, runs) for x in (losses or chosen.loss)]
    device = resolve_device(chosen.device)
    material = open_images(chosen, device, given.get("data"))
    if "model" not in given:
        _check_target(chosen.model, material)
    entrants = name_losses(chosen.loss, loaded, material.classes)
    chosen = decided(chosen, len(material.training_rows(chosen.per_class, Stream(chosen.seed))))
    job = TrainingSession(
        Path(), chosen, material, entrants, device, given.get("model"), reporter, stop
    )
    job.check()
    _warn_of_leaks(job, list(losses or chosen.loss), Path(runs))
    job.folder = folders.create(out, chosen, material, sys.argv, device)
    save_losses(
        job.folder,
        [
            x
            for x, spec in zip(entrants, losses or chosen.loss, strict=True)
            if isinstance(spec, str | Path)
        ],
    )
    return _carry(job)


def _check_target(model: str, material: TrainingImages) -> None:
    """Raise a SettingsError where a model tells images apart and the data pixels, or reversed."""
    told_apart = SEGMENTATION if segments(model) else CLASSIFICATION
    if told_apart is not material.target:
        raise SettingsError(
            f"{material.dataset.name} has classes of {material.target.labelled}, and {model} tells "
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

    Raises:
        SettingsError: there is none; a setting differs; or what was handed over as an object is not
            handed over again.
        RunInUse: another process trains there.
        DamagedFile: a file of it does not check out.
    """
    needed()
    folder, chosen = folders.find(spec, Path(out))
    given = objects or {}
    settings = dict(settings or {})
    moved = (
        [settings.pop("data")]
        if is_path_source(str(settings.get("data", ""))) and is_path_source(chosen.data)
        else []
    )
    _same(chosen, {**settings, **({"loss": [loss_label(x) for x in losses]} if losses else {})})
    for name in ("model", "data"):
        if (getattr(chosen, name) == GIVEN) != (name in given):
            need = (
                f"was handed a {name} as an object: hand it over again"
                if name not in given
                else f"keeps its {name}"
            )
            raise SettingsError(f"{folder} {need}")
    device = resolve_device(chosen.device)
    where = places.find_places(
        folder, {"data": chosen.data}, moved, f"metaloss train --resume {folder} --data"
    )
    material = open_images(replace(chosen, data=where["data"]), device, given.get("data"))
    loaded = [x if isinstance(x, nn.Module) else None for x in losses or [None] * len(chosen.loss)]
    kept = read_losses(folder, chosen.loss) if not all(loaded) else []
    entrants = name_losses(
        chosen.loss, [x or kept[i] for i, x in enumerate(loaded)], material.classes
    )
    folders.check_conditions(folder, folders.conditions(material, device), allow_changes)
    places.keep_places(folder, where)
    job = TrainingSession(
        folder, chosen, material, entrants, device, given.get("model"), reporter, stop
    )
    if chosen.devices > 1 and folders.summary(folder) is None:
        job.check()
    return _carry(job)


def _warn_of_leaks(job: TrainingSession, specs: Sequence[Any], runs: Path) -> None:
    """Warn of losses that have learned from test images.

    To train with them is fair; to judge them by these images is not.
    """
    material = job.material
    if not isinstance(material.dataset, Dataset):
        return
    for x, spec in zip(job.losses, specs, strict=True):
        if isinstance(x.loss, Criterion):
            origin = origin_of(spec, x.loss, runs)
            if refusal := data_overlap(
                origin, x.loss, material.dataset, material.shares.test
            ).refusal:
                job.reporter.on_warning(
                    f"{x.label} {refusal}, so its test accuracy is too optimistic"
                )


def needed() -> None:
    """Raise a SettingsError where Lightning is not installed."""
    if find_spec("lightning") is None:
        raise SettingsError(f"full-size training needs Lightning: {installation.command('train')}")


def _carry(job: TrainingSession) -> Fits:
    """Train, or read back what is trained."""
    with storage.Lock(job.folder), resumable(job, f"metaloss.fit(resume={str(job.folder)!r})"):
        table = folders.summary(job.folder)
        for text in job.cautions() if table is None else ():
            job.reporter.on_warning(text)
        job.reporter.on_fit_start(job)
        if table is None:
            job.run()
            table = folders.summary(job.folder)
        assert table is not None
        trainings = [
            x
            for path in sorted((job.folder / "state").glob("*/done.json"))
            if (x := folders.saved(path))
        ]
        network = (
            job.network
            if isinstance(job.network, nn.Module) or job.network is None
            else job.network()
        )
        found = results.fits(job.folder, trainings, table, network)
    job.reporter.on_fit_end(found)
    return found


@contextlib.contextmanager
def resumable(job: TrainingSession, again: str) -> Iterator[None]:
    """Let Ctrl-C stop after the step in hand, unless someone else listens to it; Lightning would
    end the process.

    `again` is the call that goes on.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    asked = job.stop
    pressed = list[int]()

    def handle(number: int, _frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    job.stop = lambda: bool(pressed) or asked()
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    except Interrupted:
        if not pressed:
            raise
        raise KeyboardInterrupt(f"stopped; {again} goes on") from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _objects(model: Any, data: Any) -> dict[str, Any]:
    """What is handed over as an object instead of a name."""
    return {
        key: x
        for key, x in (("model", model), ("data", data))
        if x is not None and not isinstance(x, str)
    }


def _distinct(labels: list[str]) -> list[str]:
    """Labels, with a number behind those that came before."""
    return [
        x if x not in labels[:i] else f"{x} #{1 + labels[:i].count(x)}"
        for i, x in enumerate(labels)
    ]


def _same(chosen: Training, changes: dict[str, Any]) -> None:
    """Raise a SettingsError where a setting is given again and is another one."""
    old = chosen.table()
    new = resolve(over(chosen.table(), changes)).table()
    if different := [key for key in {**old, **new} if old.get(key) != new.get(key)]:
        listed = "; ".join(
            f"{key}: it has {old.get(key)}, given {new.get(key)}" for key in different
        )
        raise SettingsError(f"a resumed training keeps its settings: {listed}")
