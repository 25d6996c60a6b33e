"""Numbers of steps that trainings of episodes are scored after."""

from metaloss.inner.loop import Inner

# Numbers of steps among which the strongest cross-entropy is chosen.
STEPS = (20, 30, 40, 60, 80, 120, 160, 200)


def step_grid(inner: Inner) -> tuple[int, ...]:
    """The numbers of steps that cross-entropy is tuned over, the family's own among them."""
    return tuple(sorted({*(n for n in STEPS if n > inner.warmup), inner.steps}))


def training_lengths(inner: Inner, steps: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The trainings that show what is reached after some numbers of steps (ascending), each with
    those it shows.

    One shows all its beginnings, but only where its rate does not depend on where it ends.
    """
    return [steps] if inner.anytime else [(n,) for n in steps]
