"""How numbers and texts from outside are written, in tables, reports and progress alike."""

from collections.abc import Mapping
from typing import Any


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def signed(difference: float, digits: int) -> str:
    """A difference with its sign; none where it rounds to 0.

    >>> signed(3.14, 1), signed(-3.14, 1), signed(-0.04, 1)
    ('+3.1', '-3.1', '0.0')

    Args:
        difference: in the unit in which it is shown.
        digits: behind the point.
    """
    # "z" takes the sign from what rounds to -0, and "+" would put one there again.
    unsigned = f"{difference:z.{digits}f}"
    return f"+{unsigned}" if float(unsigned) > 0 else unsigned


def near_chance(accuracy: float, classes: int) -> str:
    """A remark in brackets where an accuracy is close to that of guessing; empty elsewhere.

    >>> near_chance(0.12, 10), near_chance(0.6, 10)
    (' (near chance: 10 classes, 10.0 %)', '')
    """
    chance = 1 / classes
    # Near: less than a tenth of the way from chance to 1.
    near = accuracy < chance + (1 - chance) / 10
    return f" (near chance: {classes} classes, {percent(chance)})" if near else ""


def probability(p: float) -> str:
    """A p-value in three digits.

    >>> probability(0.0301), probability(2e-9)
    ('.030', '<.001')
    """
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def tuned_quantities(tune: str) -> str:
    """What is chosen for each loss of a comparison, by its setting `tune`.

    >>> tuned_quantities("rate"), tuned_quantities("rate+own")
    ('learning rate', 'learning rate and own parameters')
    """
    return "learning rate" + (" and own parameters" if tune.endswith("+own") else "")


def counted(n: int, noun: str) -> str:
    """A number and its noun, in the singular or the plural.

    >>> counted(1, "loss"), counted(2, "loss"), counted(2, "image")
    ('1 loss', '2 losses', '2 images')
    """
    ending = "es" if noun.endswith("s") else "s"
    return f"{n} {noun}{'' if n == 1 else ending}"


def clock(seconds: float) -> str:
    """A duration in its largest sensible unit."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5400 else f"{seconds / 3600:.1f}h"


def printable(text: str) -> str:
    """A text from outside on one line, with control characters spelt out.

    A terminal or a browser would obey them.

    >>> print(printable("a\x1b[2Jb"))
    a\\x1b[2Jb
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A table's row, its texts printable."""
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in row.items()
    }
