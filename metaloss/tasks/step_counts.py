"""Numbers of steps that trainings of episodes are scored after."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metaloss.inner.loop import Inner
from metaloss.losses.base import Losses, reads_clock
from metaloss.tasks.protocols import Engine, EpisodeTrainings

# Numbers of steps among which the strongest cross-entropy is chosen.
STEPS = (20, 30, 40, 60, 80, 120, 160, 200)


def step_grid(inner: Inner) -> tuple[int, ...]:
    """The numbers of steps that cross-entropy is tuned over, the family's own among them."""
    return tuple(sorted({*(n for n in STEPS if n > inner.warmup), inner.steps}))


def anytime(inner: Inner, losses: Losses) -> bool:
    """Whether a shorter training is the beginning of a longer one.

    It is where neither the rate nor a loss depends on where the training ends.
    """
    return inner.anytime and not reads_clock(losses)


def training_lengths(inner: Inner, steps: tuple[int, ...], losses: Losses) -> list[tuple[int, ...]]:
    """The trainings that show what is reached after some numbers of steps (ascending), each with
    those it shows.

    One shows all its beginnings, but only where these are trainings of their own.
    """
    return [steps] if anytime(inner, losses) else [(n,) for n in steps]


def shared_trainings(
    lengths: Sequence[Sequence[tuple[int, ...]]],
) -> list[tuple[tuple[int, ...], list[int]]]:
    """Trainings that populations can share, of the trainings of each.

    Each with the numbers of steps that it shows, ascending, and the places of its populations. Of
    each population they come in the order of its own.
    """
    shared: dict[tuple[int, ...], list[int]] = {}
    for place, of_population in enumerate(lengths):
        for steps in of_population:
            shared.setdefault(steps, []).append(place)
    return list(shared.items())


def observe_shared(
    engine: Engine,
    lengths: Sequence[Sequence[tuple[int, ...]]],
    trainings: Callable[[list[int], tuple[int, ...]], EpisodeTrainings],
) -> list[Float[Tensor, "M P T ..."]]:
    """What an engine shows of each population along its own trainings.

    Args:
        engine: trains the classifiers, those of all trainings at once.
        lengths: of each population its trainings, as the numbers of steps that they show.
        trainings: asks for a training of some populations, by their places, and some numbers of
            steps.
    """
    shared = shared_trainings(lengths)
    curves = engine.observe_each([trainings(places, steps) for steps, places in shared])
    of_each: list[list[Tensor]] = [[] for _ in lengths]
    for (_, places), seen in zip(shared, curves, strict=True):
        for place, curve in zip(places, seen, strict=True):
            of_each[place].append(curve)
    return [torch.cat(of_population) for of_population in of_each]
