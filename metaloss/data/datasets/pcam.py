"""PatchCamelyon: 96x96 pieces of lymph node sections, with or without metastasis (Veeling 2018)."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from metaloss.core import reading
from metaloss.data.datasets import _files, _torchvision, data_folder
from metaloss.data.datasets._images import DEFAULT_OPTIONS, ImageOptions
from metaloss.errors import DataError

SPLITS = ("train", "valid", "test")
CLASSES = ("normal", "metastasis")
LIMIT = 1 << 24  # labels of a file; the largest has 262144


def _name(split: str, part: str) -> str:
    return f"pcam/camelyonpatch_level_2_split_{split}_{part}.h5"


_NEEDS = tuple(_name(split, part) for split in SPLITS for part in "xy")


@dataclass(frozen=True, eq=False)
class Patches(_files.Files):
    """Images in rows of HDF5 files.

    Attributes:
        rows: of each image, in the file that `paths` names.
    """

    rows: tuple[int, ...] = ()

    def open_upright(self, row: int) -> Any:
        """One image, as a Pillow image."""
        from PIL import Image

        return Image.fromarray(self._opened[self.paths[row]]["x"][self.rows[row]])

    def fingerprint(self) -> str:
        """SHA-256 of the labels; pixels are not read."""
        return hashlib.sha256(self.labels.numpy().astype("<i8").tobytes()).hexdigest()

    @cached_property
    def _opened(self) -> dict[Path, Any]:
        return {path: _open(path) for path in dict.fromkeys(self.paths)}

    def __getstate__(self) -> dict[str, Any]:
        # Open files cannot be sent to the worker processes that read; each opens its own.
        return {key: value for key, value in self.__dict__.items() if key != "_opened"}


def files(options: ImageOptions = DEFAULT_OPTIONS) -> Patches:
    """The 294912 + 32768 pieces, from the user's data folder.

    Those of the training and validation splits come first, then those of the test split.

    Raises:
        DataError: h5py is not installed, or files are missing or damaged.
    """
    root = next(
        (x for x in (data_folder() / "pcam", data_folder()) if (x / _NEEDS[0]).exists()), None
    )
    if root is None:
        wanted = data_folder() / "pcam" / _NEEDS[0]
        raise DataError(
            f"pcam: not found, looked for {wanted}; get it with: metaloss data fetch pcam"
        )
    if missing := [x for x in _NEEDS if not (root / x).exists()]:
        raise DataError(
            f"{root / missing[0]}: found none, expected one; get it with: metaloss data fetch pcam"
        )
    try:
        labels = [_labels(root / _name(split, "y")) for split in SPLITS]
    except (OSError, KeyError) as error:
        raise DataError(f"{root}: pcam: cannot be read ({' '.join(str(error).split())})") from error
    paths = [
        [root / _name(split, "x")] * len(column)
        for split, column in zip(SPLITS, labels, strict=True)
    ]
    train = (paths[0] + paths[1], labels[0] + labels[1])
    test = (paths[2], labels[2])
    listed = _files.files("pcam", train, test, CLASSES, f"full set, {root}", options)
    # Every split has a file of its own, so rows begin at 0 in each.
    rows = tuple(row for column in labels for row in range(len(column)))
    return Patches(**{**vars(listed), "rows": rows})


def fetch() -> None:
    """Download into the user's data folder (8 GB); torchvision needs gdown for it."""
    _h5py()
    _torchvision.download(
        "pcam", "PCAM", _NEEDS, [{"split": split} for split in ("train", "val", "test")]
    )


def _labels(path: Path) -> list[int]:
    """The labels of a file; a DataError, before they are unpacked, where there are too many."""
    table = _open(path)["y"]
    if table.size > LIMIT:
        raise DataError(f"{path}: y: found {table.size} labels, expected at most {LIMIT}")
    labels: list[int] = table[:].reshape(-1).tolist()
    return labels


def _open(path: Path) -> Any:
    """An HDF5 file; an OSError where it is no regular file: HDF5 would wait for a FIFO."""
    with reading.open_regular(path):
        pass
    return _h5py().File(path)


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError("pcam: its files are HDF5: pip install h5py") from None
    return h5py
