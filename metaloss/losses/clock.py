"""What a loss sees of how far a training is: `t` and `logn`.

It needs torch alone: `metaloss export` writes this file's text into the modules for others.
"""

import math

HALFWAY = 0.5  # t where nobody tells a loss how far the training is
DEFAULT_STEPS = 50  # of a training, where nobody says how many there are
DEFAULT_LOGN = math.log(DEFAULT_STEPS)


def clock_terminals(step: int, steps: int) -> tuple[float, float]:
    """What expressions read of a step, counted from 0: `t` and `logn`.

    `t` is the share of the steps that is done, 0 at the first step and below 1 at the last;
    `logn` is the natural logarithm of the number of steps.

    Raises:
        ValueError: there is no such step.
    """
    if steps < 1 or not 0 <= step <= steps:
        raise ValueError(f"step must lie in 0 to steps, got step {step} of {steps}")
    return step / steps, math.log(steps)


def step_count(steps: object) -> int | None:
    """A number of steps, or None.

    Raises:
        ValueError: it is no whole number, or below 1.
    """
    if steps is None:
        return None
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1 on, got {steps!r}")
    return steps
