"""How numbers are written, in tables, reports and progress alike."""

from collections.abc import Mapping


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f} %"


def points(low: float, high: float) -> str:
    """The ends of an interval of shares, in points."""
    return f"[{100 * low:+.1f}, {100 * high:+.1f}]"


def interval(gain: Mapping[str, float]) -> str:
    """A paired difference in points, with its 95 % interval.

    >>> interval({"mean": 0.031, "low": 0.02, "high": 0.042})
    '+3.1 [+2.0, +4.2]'
    """
    return f"{100 * gain['mean']:+.1f} {points(gain['low'], gain['high'])}"


def probability(p: float) -> str:
    """A p-value in three digits.

    >>> probability(0.0301), probability(2e-9)
    ('.030', '<.001')
    """
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def clock(seconds: float) -> str:
    """A duration in its largest sensible unit."""
    if seconds < 90:
        return f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5400 else f"{seconds / 3600:.1f}h"
