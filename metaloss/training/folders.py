"""A training's folder: its settings, where it came from, every epoch, the trained weights."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core import plugins
from metaloss.core.streams import Stream
from metaloss.core.tables import csv_bytes, flatten
from metaloss.data import places
from metaloss.data.groups import digest_of_groups
from metaloss.errors import DamagedFile, DiskError, SettingsError
from metaloss.storage.environment import describe_environment, digest_of_rows
from metaloss.storage.folders import make_folder, require_folder
from metaloss.training.images import TrainingImages
from metaloss.training.models import ImageClassifier, NetworkShape, build
from metaloss.training.settings import GIVEN, Training, resolve
from metaloss.training.targets import TargetMetric

PACKAGES = ("torch", "torchvision", "lightning", "numpy")
FORMAT = 1
GROUPS = "groups.json"  # the group of every image, where there are groups
# Of every epoch; a target's own metrics follow.
COLUMNS = ("epoch", "step", "train_loss", "val_loss", "val_accuracy", "val_f1", "lr")


@dataclass(frozen=True)
class TrainingRecord:
    """One training that is over.

    Attributes:
        loss: its label.
        lr: the highest learning rate.
        seed: of its draws.
        epochs: a record of every epoch.
        seconds: that every epoch took.
        failed: why it stopped early; empty where it did not.
    """

    loss: str
    lr: float
    seed: int
    epochs: list[dict[str, Any]]
    seconds: list[float]
    failed: str = ""

    def validation(self, metric: TargetMetric) -> float:
        """The value on the validation images after the last epoch; that of a failure if it failed.

        Args:
            metric: by which networks are judged.
        """
        value = self.epochs[-1][f"val_{metric.key}"] if self.epochs and not self.failed else None
        return metric.failed if value is None or math.isnan(value) else float(value)


class ModelFile(TypedDict):
    """What is needed of a `model.json`."""

    model: str
    channels: int
    size: tuple[int, int]
    classes: int
    repeat: bool
    offsets: NotRequired[list[float] | None]


class LossRow(TypedDict):
    """What is needed of a loss's row of the table."""

    loss: str
    lr: float
    n: int
    failed: int
    accuracy: float | None
    accuracy_std: float | None
    one_answer: NotRequired[int]
    balanced_accuracy: NotRequired[float | None]
    balanced_accuracy_std: NotRequired[float | None]
    recall: NotRequired[dict[str, float | None]]


class TestRow(TypedDict):
    """What is needed of a training."""

    loss: str
    seed: int
    lr: float
    file: str
    accuracy: float | None
    f1: float | None
    test_loss: float | None
    balanced_accuracy: NotRequired[float | None]
    recall: NotRequired[dict[str, float | None]]


class SummaryFile(TypedDict):
    """What is needed of a `summary.json`."""

    table: list[LossRow]
    trainings: list[TestRow]
    tuning: dict[str, list[dict[str, float]]]


def create(
    parent: Path,
    settings: Training,
    images: TrainingImages,
    command: Sequence[str],
    device: torch.device,
) -> Path:
    """A new folder under `parent`: `<data>-<model>-<loss>`, with `-2`, `-3` … where the name is
    taken.

    Raises:
        DiskError: it cannot be made.
    """
    name = f"{images.dataset.name}-{settings.model}-{'+'.join(settings.loss)}"
    groups = images.groups
    files = {
        "config.toml": storage.toml_bytes(settings.table()),
        "provenance.json": storage.record_bytes(provenance(settings, images, command, device)),
        **places.record_file(places.sources_of("data", settings.data, settings.features)),
        **({} if groups is None else {GROUPS: storage.record_bytes({"groups": groups.tolist()})}),
    }
    return make_folder(parent, name, files, "training")


def provenance(
    settings: Training, images: TrainingImages, command: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """Versions, device and seed of a training, and which images were used for what."""
    shares = {name: getattr(images.shares, name) for name in ("train", "validation", "test")}
    return {
        "command": list(command),
        "seed": settings.seed,
        "conditions": conditions(images, device),
        "data": {
            "name": images.dataset.name,
            "origin": images.dataset.origin,
            "shares": {
                name: {"images": len(rows), "sha256": digest_of_rows(rows)}
                for name, rows in shares.items()
            },
            **({"features": images.features.about()} if images.features else {}),
            **_about_groups(images),
            "subset": "drawn anew for every seed" if settings.subset else "none",
        },
    }


def _about_groups(images: TrainingImages) -> dict[str, Any]:
    """Of how many groups each share is, and a digest of which images belong together."""
    if images.groups is None:
        return {}
    digest = digest_of_groups(images.groups)
    return {"groups": {**images.group_counts, "sha256": digest}}


def kept_groups(folder: Path) -> list[int] | None:
    """The group of every image as the training began; None where images stand for themselves."""
    path = folder / GROUPS
    if not storage.is_file(path):
        return None
    record: dict[str, list[int]] = storage.read_record(path, dict[str, list[int]])
    return record["groups"]


def conditions(images: TrainingImages, device: torch.device) -> dict[str, str]:
    """What must be the same for a resumed training to go on as if it had not stopped."""
    source = plugins.versions([("datasets", images.dataset.name.partition(":")[0])])
    of_features = {"features": images.features.digest} if images.features else {}
    groups = images.groups
    of_groups = {} if groups is None else {"groups": digest_of_groups(groups)}
    return {
        **describe_environment(device, PACKAGES),
        "data": images.dataset.fingerprint(),
        **of_features,
        **of_groups,
        **source,
    }


def find(spec: str | Path, parent: Path) -> tuple[Path, Training]:
    """The folder that a path, or a name under `parent`, means, and its settings.

    Raises:
        SettingsError: there is none.
        DamagedFile: its settings cannot be read.
    """
    return require_folder("training", spec, parent, resolve)


def save(path: Path, trained: TrainingRecord) -> None:
    """Write the record of a training that is over."""
    storage.write_record(path, asdict(trained))


def saved(path: Path) -> TrainingRecord | None:
    """Such a record; None where there is none yet."""
    if not storage.is_file(path):
        return None
    record: TrainingRecord = storage.read_record(path, TrainingRecord)
    return record


def save_weights(path: Path, network: nn.Module) -> None:
    """Write a module's parameters and buffers as sealed safetensors."""
    storage.write_tensors(path, network.state_dict())


def describe(
    path: Path,
    settings: Training,
    classifier: ImageClassifier,
    classes: Sequence[str],
    offsets: Float[Tensor, " C"] | None = None,
) -> None:
    """Write what is needed to build the classifier again, beside its weights.

    Args:
        path: of the file.
        settings: of the training.
        classifier: any of the folder's.
        classes: their names.
        offsets: the prior correction of its logits; None where there is none.
    """
    about = {
        "format": FORMAT,
        "model": settings.model,
        **asdict(classifier.shape),
        "class_names": list(classes),
        "repeat": classifier.repeat,
        **({} if offsets is None else {"offsets": offsets.tolist()}),
        **_inputs(settings.features),
    }
    storage.write_record(path, about)


def _inputs(features: str) -> dict[str, str]:
    """What a classifier takes, in words."""
    if features:
        return {"features": f"float32 [N, channels], as {features} gives them"}
    return {"images": "uint8 [N, channels, height, width], 0 to 255"}


def load(folder: Path, file: str, network: nn.Module | None = None) -> ImageClassifier:
    """A trained classifier: takes images [N K H W] as they are stored, 0 to 255, and gives logits,
    with the prior correction where it was trained for one.

    Args:
        folder: of the training.
        file: its weights' name there.
        network: a network of that kind, where the training was handed one and has no name for it.

    Raises:
        SettingsError: the network is needed and not given.
        DamagedFile: the files do not check out.
    """
    path = folder / "model.json"
    about = storage.read_record(path, ModelFile, storage.RESTORE_COPY)
    shape = NetworkShape(about["channels"], (about["size"][0], about["size"][1]), about["classes"])
    name = about["model"]
    repeat = about["repeat"]
    if network is None and name == GIVEN:
        raise SettingsError(
            f"{folder}: its network was handed over as an object: hand it over again"
        )
    tensors = storage.read_tensors(folder / file)
    zeros = [0.0] * tensors["mean"].numel() if "mean" in tensors else [0.0]
    classifier = ImageClassifier(
        copy.deepcopy(network) or build(name, shape, Stream(0), probe=False),
        shape,
        zeros,
        zeros,
        repeat,
    )
    try:
        classifier.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFile(
            f"{folder / file}: other weights than the model's ({str(error).splitlines()[0]})"
        ) from None
    if (offsets := about.get("offsets")) is not None:
        classifier.offsets = torch.tensor(offsets)
    return classifier.eval()


def tables(trainings: Sequence[TrainingRecord]) -> dict[str, bytes]:
    """`epochs.csv`, which two equal trainings have equal bytes of, and `timing.csv`."""
    rows = []
    times = []
    for x in trainings:
        name = {"loss": x.loss, "seed": x.seed, "rate": x.lr}
        for record in x.epochs:
            more = [key for key in record if key.startswith("val_") and key not in COLUMNS]
            columns = [key for key in (*COLUMNS, *more) if key in record]
            rows.append({**name, **{key: record[key] for key in columns}})
        times += [{**name, "epoch": i, "seconds": round(s, 3)} for i, s in enumerate(x.seconds, 1)]
    return {"epochs.csv": csv_bytes(rows), "timing.csv": csv_bytes(times)}


def per_training(runs: Sequence[Mapping[str, Any]]) -> bytes:
    """`results.csv`: a line for every training, with what it reached on the test images."""
    return csv_bytes([flatten(storage.json_safe(_cells(run))) for run in runs])


def _cells(run: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result a table has room for."""
    return {
        key: _cells(value) if isinstance(value, Mapping) else value
        for key, value in run.items()
        if not isinstance(value, list)
    }


def summary(folder: Path) -> dict[str, Any] | None:
    """What a finished training came to; None while it is not finished."""
    path = folder / "summary.json"
    return storage.read_record(path, SummaryFile) if storage.is_file(path) else None


def finish(folder: Path, table: dict[str, Any], pictures: Mapping[str, bytes]) -> None:
    """Write the figures, and last the summary, which says that all is there."""
    try:
        (folder / "plots").mkdir(exist_ok=True)
    except OSError as error:
        raise DiskError(f"cannot make {folder / 'plots'}: {error.strerror}") from None
    for name, data in pictures.items():
        storage.write(folder / "plots" / name, data)
    storage.write_record(folder / "summary.json", table)
