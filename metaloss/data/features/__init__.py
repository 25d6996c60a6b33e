"""Features in the place of pixels: from a file, or from a pretrained network.

A family names them as `features`: `file:PATH`, `torchvision:NAME` or `timm:NAME`.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metaloss.core.reporting import Reporter
from metaloss.data.array_files import ArrayFile, read_arrays
from metaloss.data.datasets import Dataset, Table
from metaloss.data.datasets._images import ImageOptions
from metaloss.data.features.extraction import extract, image_files
from metaloss.data.features.networks import is_network
from metaloss.errors import DataError, SettingsError

FILE = "file"
NAMED = 3  # images without features that a message names


@dataclass(frozen=True, eq=False)
class RawFeatures:
    """Features of all images of a data set, in its order, as they were computed.

    Attributes:
        values: one row an image.
        source: the setting that names them.
    """

    values: Float[Tensor, "N D"]
    source: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of their number, shape and values."""
        digest = hashlib.sha256(repr(tuple(self.values.shape)).encode())
        digest.update(self.values.numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def about(self) -> dict[str, Any]:
        """What a run's provenance says of them."""
        return {
            "source": self.source,
            "numbers": self.values.shape[1],
            "sha256": self.digest,
        }


@dataclass(frozen=True, eq=False)
class Features:
    """Standardised features, resident on the device, in the place of `Images`."""

    values: Float[Tensor, "N D"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image, as it comes out of `at`: features are channels of a single pixel."""
        return (self.values.shape[1], 1, 1)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    def at(self, rows: Int64[Tensor, "T N"]) -> Float[Tensor, "T N K H W"]:
        """The features of these rows."""
        flat = self.values.index_select(0, rows.flatten())
        result: Tensor = flat[..., None, None].unflatten(0, rows.shape)
        return result


def standardised(
    raw: RawFeatures, rows: Int64[Tensor, " n"], device: torch.device | str
) -> Features:
    """Features with mean 0 and deviation 1 over the given rows, each by itself.

    A feature that is constant there becomes 0 everywhere: nothing can be learned from it.

    Args:
        raw: the features.
        rows: those that may be learned from; all others stay unseen.
        device: where the features are put.

    Raises:
        DataError: a value is too far from the others for a number of 32 bits.
    """
    seen = raw.values[rows].double()
    mean = seen.mean(0)
    deviation = seen.std(0, correction=0)
    # What is below the resolution of the numbers themselves is rounding, and no spread.
    resolution = torch.finfo(torch.float32).eps * seen.abs().amax(0)
    constant = deviation <= resolution
    scale = torch.where(constant, 0.0, 1 / deviation.where(~constant, 1.0))
    values = ((raw.values - mean) * scale).float()
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise DataError(
            f"{raw.source}: feature {column} of row {row}: found {float(raw.values[row, column])}, "
            f"expected a number nearer to those of the training pool (mean {float(mean[column])}, "
            f"deviation {float(deviation[column])})"
        )
    return Features(values.to(device))


def check_spec(spec: str) -> None:
    """Raise a SettingsError unless a text names features."""
    kind, _, name = spec.partition(":")
    if not (is_network(spec) or (kind == FILE and name)):
        raise SettingsError(
            f"features: expected file:PATH, torchvision:NAME or timm:NAME, got '{spec}'"
        )


def open_features(
    spec: str,
    dataset: Dataset,
    place: str,
    options: ImageOptions,
    device: torch.device | str = "cpu",
    reporter: Reporter | None = None,
) -> RawFeatures:
    """The features of all images of a data set; of a table its own where `spec` is empty.

    Args:
        spec: file:PATH, torchvision:NAME or timm:NAME.
        dataset: the images.
        place: the data source, where the images lie now.
        options: how its image files are read.
        device: where a network computes.
        reporter: is told of the progress.

    Raises:
        SettingsError: the text names no features, or the images have some of their own.
        DataError: a file or weights are missing or damaged, or do not belong to the images.
    """
    if isinstance(dataset, Table):
        if spec:
            raise SettingsError(f"features: {dataset.name} has its own; leave out '{spec}'")
        return RawFeatures(dataset.values, place)
    check_spec(spec)
    kind, _, name = spec.partition(":")
    if kind != FILE:
        values = extract(spec, dataset, place, options, device, reporter or Reporter())
        return RawFeatures(values, spec)
    arrays = read_arrays(Path(name).expanduser())
    if arrays.names:
        return RawFeatures(_by_name(arrays, dataset, place, options), spec)
    return RawFeatures(_by_label(arrays, dataset), spec)


def _by_label(arrays: ArrayFile, dataset: Dataset) -> Float[Tensor, "N D"]:
    """Features in the order of the data set, which equal labels prove."""
    if arrays.labels is None:
        raise DataError(
            f"{arrays.path}: found neither labels nor names, expected one of them: they tell which "
            "image each row belongs to"
        )
    if len(arrays.features) != len(dataset.labels):
        raise DataError(
            f"{arrays.path}: features: found {len(arrays.features)} rows, expected "
            f"{len(dataset.labels)}, one for every image of {dataset.name} in its order"
        )
    # By name where names are alike, else by number.
    if set(arrays.classes) == set(dataset.classes):
        place = torch.tensor([dataset.classes.index(name) for name in arrays.classes])
        labels = place[arrays.labels]
    else:
        labels = arrays.labels
    wrong = (labels != dataset.labels).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{arrays.path}: labels: found {arrays.classes[arrays.labels[row]]} in row {row}, "
            f"expected {dataset.classes[dataset.labels[row]]}: rows must lie in the order of "
            f"{dataset.name}, the official training split first"
        )
    return arrays.features


def _by_name(
    arrays: ArrayFile, dataset: Dataset, place: str, options: ImageOptions
) -> Float[Tensor, "N D"]:
    """Features brought into the order of the images by `class/file`, or by the file's name."""
    listed = image_files(place, options)
    if listed is None:
        raise DataError(
            f"{arrays.path}: names: {dataset.name} has no files that are named; expected labels"
        )
    rows = {name: i for i, name in enumerate(arrays.names)}
    found = [
        rows.get(f"{path.parent.name}/{path.name}", rows.get(path.name)) for path in listed.paths
    ]
    lacking = [path for path, row in zip(listed.paths, found, strict=True) if row is None]
    if lacking:
        named = ", ".join(f"{path.parent.name}/{path.name}" for path in lacking[:NAMED])
        raise DataError(
            f"{arrays.path}: names: found no features for {len(lacking)} of {len(found)} images "
            f"({named}{', …' if len(lacking) > NAMED else ''}), expected class/file for each"
        )
    order = [row for row in found if row is not None]
    if len(set(order)) < len(order):
        raise DataError(
            f"{arrays.path}: names: two images of {dataset.name} have one name, expected class/file"
        )
    return arrays.features[torch.tensor(order)]
