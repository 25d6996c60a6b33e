"""ImageNet in folders train/CLASS/ and val/CLASS/, at imagenet:PATH or in the data folder."""

from pathlib import Path

from metaloss.data.datasets import _files, data_folder
from metaloss.data.datasets._class_folders import class_names, labelled_files
from metaloss.data.datasets._images import DEFAULT_OPTIONS, ImageOptions
from metaloss.errors import DataError


def files(path: str = "", options: ImageOptions = DEFAULT_OPTIONS) -> _files.Files:
    """The images in train/ and, as the official test split, in val/.

    Raises:
        DataError: there is no such folder, or one without classes or images.
    """
    root = Path(path).expanduser() if path else data_folder() / "imagenet"
    if not root.is_dir():
        raise DataError(
            f"imagenet: {root}: found no folder, expected one with train/ and val/ in it"
        )
    classes = class_names(root / "train")
    train, test = (_listed(root / part, classes) for part in ("train", "val"))
    return _files.with_levels(_files.files("imagenet", train, test, classes, str(root), options))


def _listed(folder: Path, classes: tuple[str, ...]) -> _files.FileList:
    """The files of a split and their labels."""
    if (names := class_names(folder)) != classes:
        other = sorted(set(names) ^ set(classes))
        raise DataError(f"{folder}: classes: found others than in train ({', '.join(other[:3])})")
    return labelled_files([folder], classes)
