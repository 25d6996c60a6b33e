"""New folders: whole, under the first free name, or not there at all."""

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
MOST = 10_000  # folders of one name
# By a folder with something in it, or by a file.
TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


def new_folder(parent: Path, name: str, files: Mapping[str, bytes], what: str) -> Path:
    """A new folder under `parent` with these files in it, with `-2`, `-3` … where the name is
    taken.

    A kill leaves the whole folder or none; what it leaves of one is removed when the next is made.

    Args:
        parent: made where it is not there.
        name: the folder's.
        files: their contents by name; one at least.
        what: the folder is, for the error.

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
    """The complete folder under the first free name."""
    for number in range(1, MOST):
        target = parent / (name if number == 1 else f"{name}-{number}")
        if os.path.lexists(target):
            continue
        try:
            # One step. It replaces no folder that holds anything, as one that was made in this
            # moment does.
            folder.replace(target)
        except OSError as error:
            if error.errno not in TAKEN:
                raise DiskError(f"cannot make {target}: {error.strerror}") from None
        else:
            sync_folder(parent)
            return target
    raise DiskError(f"{parent} already holds {MOST - 1} folders named {name}")


@contextlib.contextmanager
def _unfinished(parent: Path) -> Iterator[Path]:
    """A folder under a name of its own, locked by this process, and removed where it is not renamed."""
    folder, descriptor = _locked(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _locked(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Before it is locked, another process may take it for a leftover.
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    """Remove the unfinished folders of processes that are gone: theirs alone are not locked."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
