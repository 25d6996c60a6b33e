"""Writing and reading whole files: what the disk refuses is a `DiskError` with path and reason."""

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
    """Within the block, what the disk refuses is a `DiskError` that names action, path and reason."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise DiskError(f"cannot {action} {path}: {reason}") from error


def append(file: IO[bytes], data: bytes) -> None:
    """Write all of `data`, durably."""
    rest = memoryview(data)
    while rest:  # one call may stop halfway
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
    """Whether this is a file; False too for what cannot be a path: too long, or with a zero in it."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether anything lies there; False too for what cannot be a path, as a long formula."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def subfolders(parent: Path) -> list[str]:
    """The names of the folders under `parent` that hold settings: runs, trainings, studies."""
    return sorted(path.parent.name for path in parent.glob("[!.]*/config.toml"))


def write(path: Path, data: bytes) -> None:
    """Replace the content of `path` by `data`, whole or not at all.

    Only where the last step fails, the folder's fsync, does an error leave the new content visible.
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
