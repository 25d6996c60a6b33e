"""Folders of images: one sub-folder per class, or parts such as `train` and `test` that have them.

A part is recognised by its name: `train` or `training`; `val`, `valid` or `validation`; `test` or
`testing`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaloss.errors import DataError

NAMED = 3  # classes that a message names
# Files and folders that operating systems and network storage put beside images.
_BY_THE_SYSTEM = {
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
}
_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation")
_TEST = ("test", "testing")
_PARTS = (*_TRAIN, *_VALIDATION, *_TEST)


@dataclass(frozen=True)
class ClassFolders:
    """Where the images of every class are.

    Attributes:
        classes: names of the class folders, sorted.
        train: folders that have them: images to train on.
        test: the folder that has the official test split; None: there is none.
    """

    classes: tuple[str, ...]
    train: tuple[Path, ...]
    test: Path | None = None


def find_classes(root: Path) -> ClassFolders:
    """The class folders of a folder, or of its parts.

    The test split is the part `test`, or `val` where there is no `test`. Where there are both,
    `val` belongs to the images to train on: whoever trains holds some of them out anyway.

    Raises:
        DataError: no such folder, too few classes, parts that have different classes, or parts of
            which none can be trained on.
    """
    names = _folder_names(root)
    parts = [x for x in names if x.casefold() in _PARTS and _has_folders(root / x)]
    if not parts or len(names) == 1:
        return ClassFolders(_at_least_two(root, names), (root,))
    _check_nothing_beside(root, parts, [x for x in names if x not in parts])
    train, validation, test = (_part(root, parts, x) for x in (_TRAIN, _VALIDATION, _TEST))
    if train is None:
        raise DataError(
            f"{root}: parts: found {', '.join(parts)}, expected train, too: images to train on"
        )
    training = (train,) if validation is None or test is None else (train, validation)
    held_out = test or validation
    classes = class_names(train)
    for part in (*training[1:], *((held_out,) if held_out else ())):
        _check_same_classes(part, train, classes)
    return ClassFolders(classes, training, held_out)


def class_names(root: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted; folders of operating systems are no classes.

    Raises:
        DataError: there is no such folder, it cannot be read, or it has fewer than two sub-folders.
    """
    return _at_least_two(root, _folder_names(root))


def image_files(folder: Path) -> list[Path]:
    """The image files of a class, sorted by name.

    Raises:
        DataError: the folder cannot be read, or it holds none.
    """
    files = sorted(_visible(folder))
    if not files:
        raise DataError(f"{folder}: images: found none, expected at least 1")
    return files


def labelled_files(folders: Sequence[Path], classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """The image files of class folders and their labels.

    Args:
        folders: that have the class folders.
        classes: names of those.

    Raises:
        DataError: a class folder cannot be read, or holds no file.
    """
    pairs = [
        (file, label)
        for folder in folders
        for label, name in enumerate(classes)
        for file in image_files(folder / name)
    ]
    return [file for file, _ in pairs], [label for _, label in pairs]


def _folder_names(root: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    with _readable(root):
        if not root.is_dir():
            actual = "a file" if root.exists() else "none"
            raise DataError(f"{root}: folder: found {actual}, expected a folder of images")
        return tuple(sorted(path.name for path in _visible(root) if path.is_dir()))


def _at_least_two(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The names of classes; a DataError where they are fewer than two."""
    if len(classes) >= 2:
        return classes
    which = f" ({classes[0]})" if classes else ""
    # As when an archive was unpacked into a folder of its own name.
    deeper = [x for x in classes if _has_folders(root / x)]
    hint = f"; {deeper[0]} has sub-folders: is it folder:{root / deeper[0]}?" if deeper else ""
    raise DataError(
        f"{root}: classes: found {len(classes)}{which}, "
        f"expected at least 2 sub-folders, one per class{hint}"
    )


def _check_nothing_beside(root: Path, parts: Sequence[str], others: Sequence[str]) -> None:
    """Raise a DataError where there are other sub-folders beside those that have the classes."""
    if not others:
        return
    without = [x for x in others if x.casefold() in _PARTS]
    what = (
        f"no class folders in {without[0]}, so its images have no classes"
        if without
        else f"{_some(others)} beside {'it' if len(parts) == 1 else 'them'}"
    )
    raise DataError(
        f"{root}: parts: found class folders in {', '.join(parts)}, and {what}; expected parts "
        f"that all have the same class folders: move {_some(without or others)} elsewhere"
    )


def _part(root: Path, parts: Sequence[str], names: Sequence[str]) -> Path | None:
    """The part that has one of these names; None where there is none.

    Raises:
        DataError: there are two of them.
    """
    same = [x for x in parts if x.casefold() in names]
    if len(same) > 1:
        raise DataError(
            f"{root}: parts: found {' and '.join(same)}, which mean the same; expected one of them"
        )
    return root / same[0] if same else None


def _check_same_classes(part: Path, train: Path, classes: Sequence[str]) -> None:
    """Raise a DataError where a part has other classes than the images to train on."""
    names = class_names(part)
    texts = [
        f"{_some(differing)} {'is' if len(differing) == 1 else 'are'} {what}"
        for differing, what in (
            (sorted(set(classes) - set(names)), f"in {train.name} alone"),
            (sorted(set(names) - set(classes)), f"in {part.name} alone"),
        )
        if differing
    ]
    if texts:
        raise DataError(
            f"{part}: classes: {', and '.join(texts)}; expected class folders of the same names "
            f"in {train.name} and {part.name}"
        )


def _has_folders(folder: Path) -> bool:
    return any(x.is_dir() for x in _visible(folder))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, without hidden files and those of operating systems.

    Raises:
        DataError: the folder cannot be read.
    """
    with _readable(folder):
        return [
            x
            for x in folder.iterdir()
            if not x.name.startswith(".") and x.name not in _BY_THE_SYSTEM
        ]


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Within the block, an OSError becomes a DataError that names the folder."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder}: folder: cannot be read ({error.strerror}), expected a folder of images"
        ) from None
