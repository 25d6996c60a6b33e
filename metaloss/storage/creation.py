"""New folders, which appear whole and under the first free name, or not at all."""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from metaloss.errors import DiskError
from metaloss.storage.disk import sync_folder, write

PREFIX = ".new-"
MAX_NUMBER = 10_000  # of folders of one name
# Errors of a rename to a name that a folder with content, or a file, already has.
NAME_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def new_folder(parent: Path, name: str, files: Mapping[str, bytes], what: str) -> Path:
    """A new folder under `parent` with these files; `-2`, `-3` … is added where the name is taken.

    After a kill the whole folder is there or none; unfinished remains are removed when the next
    folder is made.

    Args:
        parent: made where it is not there.
        name: of the folder.
        files: their contents by name; at least one.
        what: the kind of folder, for the message of an error.

    Raises:
        DiskError: it cannot be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        with _unfinished(parent) as folder:
            folder.chmod(0o755)
            for file, data in files.items():
                write(folder / file, data)
            return _named(folder, parent, name)
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(f"cannot make a {what} under {parent}: {error.strerror}") from None


def _named(folder: Path, parent: Path, name: str) -> Path:
    """The path of the folder after it is renamed to the first free name."""
    for number in range(1, MAX_NUMBER):
        target = parent / (name if number == 1 else f"{name}-{number}")
        if os.path.lexists(target):
            continue
        try:
            # An atomic step. It never replaces a folder with files in it, so it fails where another
            # process made one of this name a moment ago.
            folder.replace(target)
        except OSError as error:
            if error.errno not in NAME_TAKEN:
                raise DiskError(f"cannot make {target}: {error.strerror}") from None
        else:
            sync_folder(parent)
            return target
    raise DiskError(f"{parent} already holds {MAX_NUMBER - 1} folders named {name}")


@contextlib.contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """A folder under a temporary name, locked by this process; removed unless it was renamed."""
    folder, descriptor = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new temporary folder, and the descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Another process may remove it before it is locked: then try again.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    """Remove the unfinished folders of processes that have ended: only those are not locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
