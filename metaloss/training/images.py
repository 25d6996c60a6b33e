"""The images of a training, in shares and on the device."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.data import datasets
from metaloss.data.datasets import Dataset, Table
from metaloss.data.datasets._files import DEFAULT_SIZE, Files
from metaloss.data.datasets.voc import Scenes
from metaloss.data.features import RawFeatures, open_features
from metaloss.data.groups import Data, with_groups, with_groups_of
from metaloss.errors import DataError, SettingsError
from metaloss.training.models import MEAN, STD
from metaloss.training.networks import HEADS, takes_features
from metaloss.training.segmentation import check_masks
from metaloss.training.settings import GIVEN, Training
from metaloss.training.shares import Shares, held_out, split_shares
from metaloss.training.sources import Resident, Rows, Streamed
from metaloss.training.targets import SEGMENTATION, Target, classification_by
from metaloss.training.user_data import as_dataset

# Settings of images that have one class each.
FOR_IMAGES = (
    "metric",
    "class_weights",
    "sampling",
    "thresholds",
    "prior_correction",
    "features",
    "groups",
)
BLOCK = 4096  # images whose colours are added up at once


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """All images of a training, and what they are.

    Attributes:
        source: gives batches.
        dataset: the labels, classes, splits and origin.
        shares: of its rows, for all seeds and losses the same.
        channels: of an image.
        size: height and width of an image as it is stored.
        mean, std: of each channel over the training share, from 0 to 1.
        metric: what networks are judged by, as the settings have it.
        features: what takes the place of the pixels; its numbers are the channels of one pixel.
    """

    source: Resident | Streamed
    dataset: Dataset | Files | Scenes
    shares: Shares
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    metric: dict[str, Any] | None = None
    features: RawFeatures | None = None

    def seen_size(self, size: int | None) -> tuple[int, int]:
        """Height and width of what a network sees.

        Args:
            size: that the settings name for images.
        """
        return (size, size) if size and self.features is None else self.size

    @property
    def feature_count(self) -> int | None:
        """Numbers that take an image's place; None where none do."""
        return self.channels if self.features is not None else None

    @property
    def groups(self) -> Int64[Tensor, " N"] | None:
        """The group of every image of the data set; None where images stand for themselves."""
        return None if isinstance(self.dataset, Scenes) else self.dataset.groups

    @property
    def group_counts(self) -> dict[str, int]:
        """Of how many groups the images of every share are; nothing where there are none."""
        if self.groups is None:
            return {}
        return {name: len(self.groups[rows].unique()) for name, rows in vars(self.shares).items()}

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.dataset.classes)

    @cached_property
    def target(self) -> Target:
        """Whether every image has a class, or every pixel, and by what it is judged."""
        if isinstance(self.dataset, Scenes):
            return SEGMENTATION
        return classification_by(self.metric, self.dataset.classes)

    def class_counts(self, per_class: int | None, key: Stream) -> dict[str, int]:
        """How many images of every class there are to train on; nothing where pixels have classes.

        Args:
            per_class: as for `training_rows`.
            key: as for `training_rows`.
        """
        if isinstance(self.dataset, Scenes):
            return {}
        labels = self.dataset.labels[self.training_rows(per_class, key)]
        counts = labels.bincount(minlength=self.classes).tolist()
        return dict(zip(self.dataset.classes, counts, strict=True))

    @property
    def validation_counts(self) -> dict[str, int]:
        """How many images of every class there are to validate on."""
        labels = self.dataset.labels[self.shares.validation]  # type: ignore[union-attr]
        counts = labels.bincount(minlength=self.classes).tolist()
        return dict(zip(self.dataset.classes, counts, strict=True))

    def training_rows(self, per_class: int | None, key: Stream) -> Rows:
        """Rows to train on: all of the training share, or so many of every class, drawn from the
        stream.

        Raises:
            SettingsError: a class has fewer, or it is pixels that have classes.
        """
        rows = self.shares.train
        if per_class is None:
            return rows
        if isinstance(self.dataset, Scenes):
            raise SettingsError(
                f"subset counts images of a class, and in {self.dataset.name} it is pixels that "
                "have one"
            )
        drawn = []
        for label, name in enumerate(self.dataset.classes):
            of_class = rows[self.dataset.labels[rows] == label]
            if len(of_class) < per_class:
                raise SettingsError(
                    f"subset: class '{name}' has {len(of_class)} images to train on, asked for "
                    f"{per_class}"
                )
            drawn.append(of_class[key.at("subset", label).permutation(len(of_class))[:per_class]])
        return torch.cat(drawn).sort().values


def open_images(
    settings: Training,
    device: torch.device,
    user_data: Any = None,
    reporter: Reporter | None = None,
    user_groups: Any = None,
) -> TrainingImages:
    """The images that the settings name, read and cut into shares.

    Args:
        settings: of the training.
        device: where the images will be used.
        user_data: the images themselves, where the settings cannot name them; as for
            `metaloss.fit`.
        reporter: is told of the progress where a network computes features.
        user_groups: the group of every image, where the settings cannot name a file with them.

    Raises:
        SettingsError: no such data source, or features that cannot be.
        DataError: images are missing, damaged or too few.
    """
    options = settings.image_options

    def grouped(dataset: Data) -> Data:
        if user_groups is None:
            return with_groups(dataset, settings.groups)
        return with_groups_of(dataset, user_groups)

    if user_data is not None:
        if settings.features:
            raise SettingsError(
                "features are of images that a name means; of images in memory compute them first, "
                "and give them as file:PATH with their labels"
            )
        return in_memory(grouped(as_dataset(user_data)), settings, device)
    if (scenes := datasets.scenes(settings.data, options)) is not None:
        return with_masks(scenes, settings, device)
    if settings.features or settings.data.startswith("file:"):
        dataset = grouped(datasets.load(settings.data, options))
        return on_features(dataset, settings, device, reporter)
    files = datasets.files(settings.data, options)
    # What lies in memory is brought to the size batch by batch, which takes less of it.
    if files is None:
        dataset = datasets.load(settings.data, replace(options, size=None))
        return in_memory(grouped(dataset), settings, device)
    files = grouped(files)
    size = settings.size or DEFAULT_SIZE
    if files.channels * size * size * len(files.labels) <= settings.resident:
        return in_memory(files.dataset(size), settings, device)
    shares = shares_of(files, settings)
    streamed = Streamed(files, size, settings.workers, device)
    mean, std = usual_moments(files.channels)
    return TrainingImages(
        streamed, files, shares, files.channels, (size, size), mean, std, settings.metric
    )


def shares_of(dataset: Dataset | Files, settings: Training) -> Shares:
    """The shares of the images, as the settings have them."""
    return split_shares(dataset, settings.validation, Stream(settings.seed).at("shares"))


def in_memory(dataset: Dataset, settings: Training, device: torch.device) -> TrainingImages:
    """Images in memory, moved to the device.

    Raises:
        DataError: they are features, and no images.
    """
    if isinstance(dataset, Table):
        raise DataError(
            f"{dataset.name} has features and no images: train on it by its name, file:PATH"
        )
    shares = shares_of(dataset, settings)
    _, channels, height, width = dataset.pixels.shape
    mean, std = (
        usual_moments(channels) if settings.pretrained else moments(dataset.pixels, shares.train)
    )
    source = Resident(dataset.pixels.to(device), dataset.labels.to(device))
    return TrainingImages(
        source, dataset, shares, channels, (height, width), mean, std, settings.metric
    )


def on_features(
    dataset: Dataset, settings: Training, device: torch.device, reporter: Reporter | None = None
) -> TrainingImages:
    """Features in the place of pixels, moved to the device.

    Raises:
        SettingsError: the settings name no features, or the model takes none.
        DataError: a file or weights are missing, or do not belong to the images.
    """
    if settings.model != GIVEN and not takes_features(settings.model):
        raise SettingsError(
            f"model '{settings.model}' takes images, and here are features: --model "
            f"{' or '.join(HEADS)}"
        )
    raw = open_features(
        settings.features, dataset, settings.data, settings.image_options, device, reporter
    )
    shares = shares_of(dataset, settings)
    mean, std = feature_moments(raw.values, shares.train)
    source = Resident(raw.values[..., None, None].to(device), dataset.labels.to(device))
    return TrainingImages(
        source,
        dataset,
        shares,
        raw.values.shape[1],
        (1, 1),
        mean,
        std,
        settings.metric,
        raw,
    )


def feature_moments(
    values: Float[Tensor, "N D"], rows: Rows
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each feature over these rows; infinite where it is constant.

    The classifier's normalisation takes moments of values from 0 to 1 of 255.
    """
    seen = values[rows].double()
    deviation = seen.std(0, correction=0)
    # A feature that is constant tells nothing, and what is below its resolution is rounding.
    flat = deviation <= torch.finfo(torch.float32).eps * seen.abs().amax(0)
    std = deviation.where(~flat, torch.inf)
    return tuple((seen.mean(0) / 255).tolist()), tuple((std / 255).tolist())


def with_masks(scenes: Scenes, settings: Training, device: torch.device) -> TrainingImages:
    """Images with masks: the validation list is the test share, a share of the training list is
    held out.

    Raises:
        SettingsError: the augmentation does not go with masks, or another setting.
        DataError: fewer than two images to train on, or files that are damaged.
    """
    if settings.augment.kind not in ("none", "base"):
        raise SettingsError(
            f"augment '{settings.augment.kind}' does not go with masks; 'none' and 'base' do"
        )
    for name in FOR_IMAGES:
        if getattr(settings, name) != getattr(Training(), name):
            raise SettingsError(
                f"{name} is for images that have one class each; {scenes.name} has classes of "
                "pixels: leave it out"
            )
    train, test = (rows.nonzero()[:, 0] for rows in (~scenes.test, scenes.test))
    if len(train) < 2:
        raise DataError(
            f"{scenes.name}: found {len(train)} images to train on, expected at least 2"
        )
    check_masks(scenes)
    held = held_out(settings.validation, len(train))
    mixed = train[Stream(settings.seed).at("shares").permutation(len(train))]
    shares = Shares(mixed[held:].sort().values, mixed[:held].sort().values, test)
    size = settings.size or DEFAULT_SIZE
    source: Resident | Streamed = Streamed(scenes, size, settings.workers, device)
    if 4 * size * size * len(scenes.paths) <= settings.resident:
        pixels, labels = zip(
            *(scenes.pair(row, size) for row in range(len(scenes.paths))), strict=True
        )
        source = Resident(torch.stack(pixels).to(device), torch.stack(labels).to(device))
    return TrainingImages(source, scenes, shares, 3, (size, size), MEAN, STD)


def usual_moments(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's mean and standard deviation of each channel; of a single one, their means."""
    return ((sum(MEAN) / 3,), (sum(STD) / 3,)) if channels == 1 else (MEAN, STD)


def moments(
    pixels: UInt8[Tensor, "N K H W"], rows: Rows
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of values from 0 to 1.

    A channel of one colour gets the standard deviation 1.
    """
    total = torch.zeros(2, pixels.shape[1], dtype=torch.float64)
    for part in rows.split(BLOCK):
        x = pixels[part].double() / 255
        total += torch.stack([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))]) * len(part)
    mean, square = total / len(rows)
    std = (square - mean**2).clamp(min=0).sqrt()
    return tuple(mean.tolist()), tuple(std.where(std > 1e-6, 1.0).tolist())
