"""Writing and reading of whole files; an error of the disk becomes a `DiskError`."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from metaloss.errors import DiskError

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission (read-only)",
    errno.ENOENT: "missing parent folder",
}


@contextlib.contextmanager
def disk(action: str, path: Path) -> Iterator[None]:
    """Within the block, an OSError becomes a `DiskError` that names action, path and reason."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise DiskError(f"cannot {action} {path}: {reason}") from error


def append(file: IO[bytes], data: bytes) -> None:
    """Write all of `data`, durably."""
    rest = memoryview(data)
    # One call may write a part alone.
    while rest:
        rest = rest[os.write(file.fileno(), rest) :]
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a name that was just created or replaced in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_file(path: Path) -> bool:
    """Whether this is a file.

    False, and no error, for what cannot be a path: too long a text, or one with a zero byte.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether anything is at this path; False for what cannot be a path, e.g. a long formula."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def subfolders(parent: Path) -> list[str]:
    """The names of the folders under `parent` that hold settings: runs, trainings, studies."""
    return sorted(path.parent.name for path in parent.glob("[!.]*/config.toml"))


def write(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`, whole or not at all.

    An error leaves the old content in place, unless the last step fails, the folder's fsync.
    """
    # The process id keeps two writers of one path out of each other's temporary file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk("write", path):
        try:
            with temporary.open("wb", buffering=0) as file:
                append(file, data)
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
