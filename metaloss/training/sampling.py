"""Which images every batch has: passes over all of them, or as many of every class."""

import torch
from jaxtyping import Int64
from torch import Tensor

from metaloss.core.streams import Stream


def batch_order(
    rows: Int64[Tensor, " N"], batch: int, key: Stream, first: int, steps: int
) -> Int64[Tensor, " M"]:
    """The rows of steps `first` to `first + steps`, one batch after another.

    Every pass over the images is a permutation of its own; what is left of it after its last whole
    batch is dropped.
    """
    batch = min(batch, len(rows))
    each = len(rows) // batch
    batches = []
    for step in range(first, first + steps):
        number, place = divmod(step, each)
        if place == 0 or step == first:
            mixed = rows[key.at("order", number).permutation(len(rows))]
        batches.append(mixed[place * batch : (place + 1) * batch])
    return torch.cat(batches)


def balanced_order(
    rows: Int64[Tensor, " N"],
    labels: Int64[Tensor, " N"],
    batch: int,
    key: Stream,
    first: int,
    steps: int,
) -> Int64[Tensor, " M"]:
    """The rows of steps `first` to `first + steps`, one batch after another.

    Every class has its share of a batch; what cannot be divided goes to the classes in turn. A
    class's images come in permutations, one after another, so each of them is seen equally often.

    Args:
        rows: those to train on.
        labels: their classes.
        batch: images of a step.
        key: of what is drawn, a function of the step alone.
        first: step, counted from 0.
        steps: how many.
    """
    members = [rows[labels == label] for label in labels.unique().tolist()]
    classes = len(members)
    each, rest = divmod(batch, classes)
    batches = []
    for step in range(first, first + steps):
        parts = []
        for label, of_class in enumerate(members):
            # Extra images so far: of numbers below rest * step, those that leave this remainder.
            start, end = (
                each * n + (rest * n + classes - 1 - label) // classes for n in (step, step + 1)
            )
            parts += [_drawn(of_class, key.at("class", label), start, end)]
        drawn = torch.cat(parts)
        # Mixed, because several devices take parts of a batch.
        batches.append(drawn[key.at("mix", step).permutation(len(drawn))])
    return torch.cat(batches)


def _drawn(rows: Tensor, key: Stream, start: int, end: int) -> Tensor:
    """Numbers `start` to `end` of the rows in one permutation after another."""
    parts = []
    while start < end:
        number, place = divmod(start, len(rows))
        stop = min(len(rows), place + end - start)
        parts.append(rows[key.at(number).permutation(len(rows))][place:stop])
        start += stop - place
    return torch.cat(parts) if parts else rows[:0]
