"""Data sources: each file of this folder is one source, which `load(name)` reads.

Only `fetch` uses the network.
"""

import hashlib
import importlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from metaloss.core import plugins, registry
from metaloss.data.datasets import _digests, _images
from metaloss.data.datasets._images import ImageOptions
from metaloss.errors import DataError, SettingsError

BLOCK = 1024  # images that are resized together
PATHS = ("file", "folder", "imagenet", "voc")  # sources that are given as NAME:PATH


# Objects are compared by identity: `==` of two tensors is no truth value.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images, as they are stored; the official training split first, then the official
    test split if any.

    Attributes:
        name: What the user calls it, e.g. "fashionmnist" or "folder:scans".
        pixels: Raw images, 0 to 255.
        labels: The class of each image, a position in `classes`.
        classes: Names of the classes.
        index: Each image's index in its official split; decides its pool.
        test: True in the official test split; False everywhere where the source has none.
        origin: Where the images come from, to be told to the user.
        decoded: Digests of the images as their files hold them, where `pixels` were resized;
            None where they were not.
        files: Of each image the class's folder and the file's name, where it was read from a file
            of its own; else empty.
        groups: A number for the group of every image, such as a patient's, which no pool, fold or
            task tears apart; None where images stand for themselves.
    """

    name: str
    pixels: UInt8[Tensor, "N K H W"]
    labels: Int64[Tensor, " N"]
    classes: tuple[str, ...]
    index: Int64[Tensor, " N"]
    test: Bool[Tensor, " N"]
    origin: str
    decoded: Int64[Tensor, " N"] | None = None
    files: tuple[str, ...] = ()
    groups: Int64[Tensor, " N"] | None = None

    def fingerprint(self) -> str:
        """SHA-256 of shapes, pixels and labels, as hexadecimal digits; computed once."""
        return self._digest

    @cached_property
    def digests(self) -> Int64[Tensor, " N"]:
        """A number for every image, the same under any name and in any data set."""
        return _digests.of_pixels(self.pixels) if self.decoded is None else self.decoded

    def digests_of(self, rows: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The digests of some images; those of the others are not computed."""
        whole = "digests" in vars(self) or self.decoded is not None or len(rows) == len(self.labels)
        return self.digests[rows] if whole else _digests.of_pixels(self.pixels[rows])

    def contents(self, rows: Int64[Tensor, " n"]) -> Shaped[Tensor, "n D"]:
        """What these rows hold, each as a vector: the pixels."""
        return self.pixels[rows].flatten(1)

    def informative(self, rows: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which of these images there is anything to learn from: those not of one colour."""
        pixels = self.contents(rows)
        return (pixels != pixels[:, :1]).any(1)

    def resized(self, size: int) -> "Dataset":
        """The same images as squares of that size, stretched where they are not square.

        Raises:
            DataError: They are too many to hold.
        """
        n, channels, height, width = self.pixels.shape
        if (height, width) == (size, size):
            return self
        _images.check_memory(self.name, n, (channels, size, size))

        def resized_part(x: Tensor) -> Tensor:
            return (
                interpolate(x.float(), (size, size), mode="bilinear", antialias=True)
                .round()
                .to(torch.uint8)
            )

        # In blocks: all of them as floats would take four times the memory.
        pixels = torch.cat([resized_part(x) for x in self.pixels.split(BLOCK)])
        origin = f"{self.origin}, brought to {size}x{size} pixels"
        return replace(self, pixels=pixels, decoded=self.digests, origin=origin)

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.pixels.shape), len(self.classes))).encode())
        digest.update(self.pixels.contiguous().numpy().data)
        # Little-endian on every machine, so that the same images have the same fingerprint
        # everywhere.
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Dataset):
    """Labelled rows of features without images: its `pixels` are empty.

    Attributes:
        values: the features of each row.
    """

    values: Float[Tensor, "N D"]

    @cached_property
    def digests(self) -> Int64[Tensor, " N"]:
        """A number for every row, the same in any file."""
        return _digests.of_vectors(self.values)

    def digests_of(self, rows: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """The digests of some rows."""
        return self.digests[rows]

    def contents(self, rows: Int64[Tensor, " n"]) -> Shaped[Tensor, "n D"]:
        """What these rows hold: the features."""
        return self.values[rows]

    def informative(self, rows: Int64[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """All of them: one number may tell everything."""
        return torch.ones(len(rows), dtype=torch.bool)

    def resized(self, size: int) -> "Dataset":
        """Nothing.

        Raises:
            SettingsError: always.
        """
        raise SettingsError(f"{self.name} has no images, so none of size {size}")

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.values.shape), len(self.classes))).encode())
        digest.update(self.values.numpy().astype("<f4").tobytes())
        digest.update(self.labels.numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def data_folder() -> Path:
    """The user's data folder.

    $METALOSS_DATA, else metaloss in $XDG_DATA_HOME, else ~/.local/share/metaloss.
    """
    if data_home := os.environ.get("METALOSS_DATA"):
        return Path(data_home).expanduser()
    if share := os.environ.get("XDG_DATA_HOME"):
        return Path(share) / "metaloss"
    return Path.home() / ".local" / "share" / "metaloss"


def names() -> list[str]:
    """Names of all sources, sorted; none of them is imported."""
    return registry.names("datasets")


def load(name: str, options: ImageOptions = _images.DEFAULT_OPTIONS) -> Dataset:
    """The data set of that name, read from disk and checked; never from the network.

    Args:
        name: A source ("fashionmnist", "digits", ...), or "folder:PATH" with one sub-folder of
            images per class, or with train and test folders of such sub-folders, or
            "imagenet:PATH" with train and val folders of them, or "file:PATH" with features and
            labels.
        options: Size, background and limit of the images.

    Raises:
        SettingsError: The name is unknown, or the source has classes of pixels, not of images.
        DataError: Files are missing or damaged, or there are too many images to hold.

    Warns:
        DataWarning: Images are constant, equal or of few grey levels, or have more than eight bits.
    """
    source, path = source_and_path(name)
    if (image_files := files(name, options)) is not None:
        dataset: Dataset = image_files.dataset()
    elif hasattr(source, "files"):
        dataset = source.load(*path, options)
    else:
        dataset = source.load(*path)
    return dataset if options.size is None else dataset.resized(options.size)


def files(name: str, options: ImageOptions = _images.DEFAULT_OPTIONS) -> Any:
    """The data set of that name as `Files`, whose images are not read yet; None where it has none.

    None for `folder:PATH` without a size, too: its images are brought to a common size, for which
    all of them must be read.

    Raises:
        SettingsError: The name is unknown.
        DataError: Files are missing or damaged.
    """
    source, path = source_and_path(name)
    return source.files(*path, options) if hasattr(source, "files") else None


def scenes(name: str, options: ImageOptions = _images.DEFAULT_OPTIONS) -> Any:
    """The data set of that name as `Scenes`, images with a class for every pixel.

    None where each image has one class.

    Raises:
        SettingsError: The name is unknown.
        DataError: Files are missing or damaged.
    """
    source, path = source_and_path(name)
    return source.scenes(*path, options) if hasattr(source, "scenes") else None


def source_and_path(name: str) -> tuple[ModuleType, tuple[str, ...]]:
    """The module of a source, and the path that its name holds.

    Raises:
        SettingsError: The name is unknown, a path is missing, or there is one where none belongs.
    """
    kind, colon, path = name.partition(":")
    source = _source(kind)
    if kind in ("file", "folder") and not path:
        raise SettingsError(f"data source {name!r} needs the path of a {kind}: {kind}:PATH")
    if colon and kind not in PATHS:
        raise SettingsError(
            f"data source {kind!r} takes no path, got {name!r}; "
            f"{', '.join(f'{source}:PATH' for source in PATHS)} do"
        )
    return source, ((path,) if kind in PATHS else ())


def fetch(name: str) -> str:
    """Download a data set into the user's data folder, read it back, and say what to print.

    Raises:
        SettingsError: The name is unknown, or nothing can be downloaded under it.
        DataError: The download failed, or what came is damaged.
        DiskError: The data folder cannot be written.
    """
    kind, colon, _ = name.partition(":")
    source = _source(kind)
    if not hasattr(source, "fetch"):
        known = ", ".join(other for other in names() if hasattr(_source(other), "fetch"))
        raise SettingsError(f"data source {name!r} has nothing to fetch; these have: {known}")
    if colon:
        raise SettingsError(
            f"what is fetched comes into the data folder: metaloss data fetch {kind}, got {name!r}"
        )
    source.fetch()
    try:
        images = scenes(name) or load(name)
    except DataError as error:
        raise DataError(f"{error} (delete this file, then fetch again)") from error
    return f"{name}: {len(images.test)} images, {len(images.classes)} classes; {images.origin}"


def verify(name: str, options: ImageOptions = _images.DEFAULT_OPTIONS) -> list[str]:
    """Read and check everything of a data set; the lines to print.

    Args:
        name: The source, as in `load`.
        options: How image files are read, as in `load`.

    Raises:
        SettingsError: The name is unknown.
        DataError: Files are missing or damaged.
    """
    source, path = source_and_path(name)
    if hasattr(source, "verify"):
        return list(source.verify(*path, options))
    dataset = load(name, options)
    count = len(dataset.classes)
    train = dataset.labels[~dataset.test].bincount(minlength=count).tolist()
    test = dataset.labels[dataset.test].bincount(minlength=count).tolist()
    kind = (
        f"rows of {dataset.values.shape[1]} features"
        if isinstance(dataset, Table)
        else f"images of {'x'.join(map(str, dataset.pixels.shape[1:]))} (channels, height, width)"
    )
    width = max(len("class"), *map(len, dataset.classes))
    rows = zip(dataset.classes, train, test, strict=True)
    return [
        f"{dataset.name}: {dataset.origin}",
        f"{len(dataset.labels)} {kind}, {count} classes",
        f"{'class':{width}}  training    test"
        + ("" if any(test) else "  (no official test split)"),
        *(f"{label:{width}}  {a:8}{b:8}" for label, a, b in rows),
        f"fingerprint {dataset.fingerprint()}",
    ]


def _source(name: str) -> ModuleType:
    """The module of a source."""
    known = names()
    if name not in known:
        hint = registry.suggestion("data source", name, known)
        listed = ", ".join(f"{x}:PATH" if x in ("file", "folder") else x for x in known)
        raise SettingsError(f"unknown data source {name!r}.{hint}  (known: {listed})")
    others = plugins.find("datasets")
    if name not in others:
        return importlib.import_module(f"{__name__}.{name}")
    module: ModuleType = others[name].load()
    if not callable(getattr(module, "load", None)):
        raise SettingsError(f"{others[name].origin}: a data source needs a function load()")
    return module
