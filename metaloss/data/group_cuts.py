"""Images cut into parts, no group of them torn apart.

A copy of what was learned is no test of it, and two images of one patient nearly are. So a group
lies in one fold, in one pool, and on one side of every task.
"""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from metaloss.core.streams import Stream

TRIES = 20  # orders of the groups, before images are refused

Rows = tuple[Int64[Tensor, " _"], ...]  # for each class, rows of the images


def parts_of_groups(
    rows: Rows, groups: Int64[Tensor, " N"], shares: Sequence[int], salt: str
) -> list[Rows]:
    """Rows cut into parts, each group whole in one of them, classes as alike as groups allow.

    As in scikit-learn's `StratifiedGroupKFold`, groups are dealt out one after the other, those
    that are most uneven first, each to the part where it makes the classes' shares most even. Where
    that leaves a part without a class, it gets a group of another part that can spare one.

    Args:
        rows: for each class.
        groups: of every image of the data set.
        shares: how the images should be shared out, as (3, 1, 1).
        salt: decides between groups that are alike.
    """
    counts = _counts(rows, groups)
    best = None
    for number in range(TRIES):
        order = sorted(
            counts, key=lambda g: (-float(counts[g].std(correction=0)), _hash(salt, number, g))
        )
        place = _dealt(counts, order, torch.tensor(shares, dtype=torch.float64))
        least = float(_held(counts, place, len(shares)).min())
        if best is None or least > best[0]:
            best = least, place
        if least:
            break
    assert best is not None
    least, place = best
    if not least:
        place = _completed(counts, place, len(shares))
    return [
        tuple(x[torch.tensor([place[g] == p for g in groups[x].tolist()]).bool()] for x in rows)
        for p in range(len(shares))
    ]


def _counts(rows: Rows, groups: Int64[Tensor, " N"]) -> dict[int, Float[Tensor, " C"]]:
    """How many images of every class each group has."""
    counts: dict[int, Float[Tensor, " C"]] = {}
    for c, of_class in enumerate(rows):
        for group in groups[of_class].tolist():
            counts.setdefault(group, torch.zeros(len(rows), dtype=torch.float64))[c] += 1
    return counts


def _hash(*what: object) -> bytes:
    return hashlib.blake2b(repr(what).encode(), digest_size=8).digest()


def _dealt(
    counts: Mapping[int, Float[Tensor, " C"]], order: Sequence[int], shares: Float[Tensor, " P"]
) -> dict[int, int]:
    """The part of every group."""
    total = sum(counts.values(), torch.zeros_like(next(iter(counts.values())))).clamp(min=1)
    # How many of each class a part should have.
    wanted = shares[:, None] / shares.sum() * total
    filled = torch.zeros_like(wanted)
    place = {}
    for group in order:
        ratio = filled / wanted  # [P C]
        added = (filled + counts[group]) / wanted
        costs = []
        for p in range(len(shares)):
            tried = ratio.clone()
            tried[p] = added[p]
            spread = float(tried.std(0, correction=0).mean())
            costs.append((round(spread, 12), float(filled[p].sum() / wanted[p].sum())))
        part = min(range(len(shares)), key=lambda p: costs[p])
        filled[part] += counts[group]
        place[group] = part
    return place


def _held(
    counts: Mapping[int, Float[Tensor, " C"]], place: Mapping[int, int], parts: int
) -> Float[Tensor, "P C"]:
    """How many images of every class each part has."""
    held = torch.zeros(parts, len(next(iter(counts.values()))), dtype=torch.float64)
    for group, part in place.items():
        held[part] += counts[group]
    return held


def _completed(
    counts: Mapping[int, Float[Tensor, " C"]], place: Mapping[int, int], parts: int
) -> dict[int, int]:
    """The part of every group, after parts that lack a class got one of its groups, if any can be
    spared: its part keeps other images of every class.
    """
    completed = dict(place)
    held = _held(counts, place, parts)
    for part, label in (held == 0).nonzero().tolist():
        spare = [
            group
            for group, n in counts.items()
            if n[label] and bool((held[completed[group]] > n)[n > 0].all())
        ]
        if held[part, label] or not spare:
            continue
        # The smallest one, of the part that has most of the class.
        group = min(
            spare, key=lambda g: (-float(held[completed[g], label]), float(counts[g].sum()))
        )
        held[completed[group]] -= counts[group]
        held[part] += counts[group]
        completed[group] = part
    return completed


def two_sides(
    rows: Sequence[Int64[Tensor, " _"]],
    groups: Int64[Tensor, " N"],
    val: Sequence[int],
    key: Stream,
) -> tuple[list[Int64[Tensor, " _"]], list[Int64[Tensor, " _"]]] | None:
    """For each class the rows to train on, and those to validate on; None where no cut was found.

    No group is on both sides. A class has at least one image on each side, and so many to validate
    on as it should, or fewer where its groups are too large.

    Args:
        rows: of each class, in the order in which they are drawn.
        groups: of every image of the data set.
        val: how many images of each class to validate on.
        key: of the cut.
    """
    counts = {g: x.long().tolist() for g, x in _counts(tuple(rows), groups).items()}
    total = [len(x) for x in rows]
    known = sorted(counts)
    for number in range(TRIES):
        order = [known[i] for i in key.at("groups", number).permutation(len(known)).tolist()]
        held = _validating(counts, order, total, val)
        if held is not None:
            side = [torch.tensor([g in held for g in groups[x].tolist()]).bool() for x in rows]
            return (
                [x[~here] for x, here in zip(rows, side, strict=True)],
                [x[here] for x, here in zip(rows, side, strict=True)],
            )
    return None


def _validating(
    counts: Mapping[int, Sequence[int]],
    order: Sequence[int],
    total: Sequence[int],
    val: Sequence[int],
) -> set[int] | None:
    """The groups to validate on; None where a class would be missing on one side."""
    held: set[int] = set()
    have = [0] * len(total)

    def take(group: int) -> None:
        held.add(group)
        for c, n in enumerate(counts[group]):
            have[c] += n

    for group in order:
        sizes = counts[group]
        if all(have[c] + n <= val[c] for c, n in enumerate(sizes)):
            take(group)
    # A class whose every group is larger than what it validates on: the smallest one will do.
    for c in range(len(total)):
        for group in sorted(order, key=lambda g: counts[g][c]):
            fits = all(have[k] + n < total[k] for k, n in enumerate(counts[group]) if n)
            if not have[c] and counts[group][c] and group not in held and fits:
                take(group)
    return held if all(0 < n < all_ for n, all_ in zip(have, total, strict=True)) else None


def first_rows(rows: Int64[Tensor, " _"], n: int) -> Int64[Tensor, " n"]:
    """The first n rows."""
    return rows[:n]


def repeated_rows(rows: Int64[Tensor, " _"], n: int) -> Int64[Tensor, " n"]:
    """The first n rows, from the start again where there are fewer."""
    return rows[torch.arange(n) % len(rows)]
