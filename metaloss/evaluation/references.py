"""What cross-entropy is worth at each kind of tasks of a mixture: the measure of what beats it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core import registry
from metaloss.core.formatting import counted
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.errors import DamagedFile
from metaloss.evaluation.tuning import Tuned, repeated
from metaloss.losses.base import CrossEntropies
from metaloss.tasks.mixture import Mixture, References
from metaloss.tasks.opening import OpenFamily
from metaloss.tasks.protocols import Engine

TOGETHER = 16  # kinds that train at once, and after which progress is told


class WrittenReferences(TypedDict):
    """A file of references: for which kinds and rates they are, and what they are."""

    family: dict[str, Any]
    absent: list[str]
    tried: list[float]
    rates: list[float]
    spreads: list[float]


def with_references(
    engine: Engine,
    families: Sequence[OpenFamily],
    rates: Sequence[float],
    folder: Path | None = None,
    reporter: Reporter | None = None,
) -> list[OpenFamily]:
    """The families, each mixture with cross-entropy's best rate at each of its kinds.

    Args:
        engine: trains it.
        families: those of a run.
        rates: among which the best one is chosen.
        folder: where it is kept for the next time, if anywhere.
        reporter: is told of the progress.

    Raises:
        DamagedFile: what is kept does not check out.
    """
    return [
        _of_mixture(engine, family, rates, folder, reporter or Reporter())
        if isinstance(family, Mixture)
        else family
        for family in families
    ]


def _of_mixture(
    engine: Engine,
    mixture: Mixture,
    rates: Sequence[float],
    folder: Path | None,
    reporter: Reporter,
) -> Mixture:
    """A mixture with its references, read where they are kept."""
    asked = {
        "family": storage.json_safe(registry.table(mixture.family)),
        "absent": list(mixture.absent),
        "tried": list(rates),
    }
    path = folder and folder / f"references-{mixture.family.name}.json"
    if path is not None and storage.is_file(path):
        written: Any = storage.read_record(path, WrittenReferences)
        if any(written[key] != value for key, value in asked.items()):
            raise DamagedFile(f"{path} is of another mixture: delete it, and it is made again")
        return mixture.with_references(
            References(tuple(written["rates"]), tuple(written["spreads"]))
        )
    references = tune_references(engine, mixture, rates, reporter)
    if path is not None:
        table = {"rates": list(references.rates), "spreads": list(references.spreads)}
        storage.write_record(path, {**asked, **table})
    return mixture.with_references(references)


def tune_references(
    engine: Engine, mixture: Mixture, rates: Sequence[float], reporter: Reporter
) -> References:
    """Cross-entropy's best rate at each kind of a mixture, on meta-training tasks of the kind.

    Which tasks these are is a matter of the mixture, not of a run: runs with other seeds have the
    same references.
    """
    tuned: list[Tuned] = []
    kinds = counted(mixture.kind_count, "kind")
    for first in range(0, mixture.kind_count, TOGETHER):
        done = f", {first} are done" if first else ""
        reporter.on_work(f"tuning cross-entropy for {kinds} of tasks{done}", plain=not first)
        numbers = range(first, min(first + TOGETHER, mixture.kind_count))
        tuned += _tune(engine, mixture, numbers, rates)
    return References(tuple(x.lr for x in tuned), tuple(x.spread for x in tuned))


def _tune(
    engine: Engine, mixture: Mixture, numbers: Sequence[int], rates: Sequence[float]
) -> list[Tuned]:
    """Cross-entropy at its best rate for some of the kinds, which train at once."""
    key = Stream(mixture.family.kinds_seed).at("references")
    one = CrossEntropies.of(1)
    kinds = [mixture.kinds[number] for number in numbers]
    seen = engine.observe_each(
        [
            kind.trainings(
                [repeated(one, len(rates))],
                "train",
                key.at(number),
                range(mixture.family.reference_tasks),
                kind.observer(),
                rates=[torch.tensor(list(rates))],
                steps=(kind.steps,),
            )
            for number, kind in zip(numbers, kinds, strict=True)
        ]
    )
    return [
        Tuned.best(one, scores, rates, (kind.steps,), kind.scale.negligible)
        for kind, (scores,) in zip(kinds, seen, strict=True)
    ]
