"""Text files with one name on each line."""

from pathlib import Path

from metaloss.core.reading import read_text
from metaloss.errors import DataError

LIMIT = 1 << 26  # bytes: ten million names


def read_names(path: Path) -> list[str]:
    """The names in a text file, without spaces around them and without a byte-order mark.

    Raises:
        DataError: there is no such file, it is not text in UTF-8, or it holds no name.
    """
    try:
        lines = read_text(path, LIMIT).splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: list: found none that can be read ({reason}), expected a name a line"
        ) from None
    names = [name for line in lines if (name := line.strip())]
    if not names:
        raise DataError(f"{path}: names: found none, expected at least 1")
    return names
