"""Results of a run's finished trainings, each kept as it ends.

A run that goes on trains none of them again.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from typing_extensions import TypedDict

from metaloss import storage
from metaloss.core import registry
from metaloss.losses.formulas import Formulas
from metaloss.tasks.training_family import TrainingFamily
from metaloss.tasks.worker_pool import TrainingRequest

FILE = "trainings.jsonl"
Result = float | Exception
Train = Callable[[Sequence[TrainingRequest]], Iterator[tuple[TrainingRequest, Result]]]


class CachedTraining(TypedDict):
    """What is needed of a training's line."""

    training: str
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class TrainingCache:
    """Accuracies of trainings by all that decides them.

    Attributes:
        file: one line per training; None: nothing is kept.
        conditions: versions, device and data; a training under others is another one.
        known: the accuracies, by the trainings' digests.
    """

    file: storage.History | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)

    def results(
        self, family: TrainingFamily, jobs: Sequence[TrainingRequest], train: Train
    ) -> list[Result]:
        """What every job gives, NaN where its training diverged.

        Args:
            family: whose trainings they are.
            jobs: in the order of the results.
            train: does those that are not known, and gives each one's result as it ends. What
                raised is not kept.
        """
        if self.file is None:
            results = dict(train(jobs))
            return [results[job] for job in jobs]
        names = {job: self._digest(family, job) for job in jobs}
        # Candidates may be the same network.
        new = {name: job for job, name in names.items() if name not in self.known}
        failed: dict[str, Exception] = {}
        for job, result in train([*new.values()]):
            name = names[job]
            if isinstance(result, Exception):
                failed[name] = result
            else:
                self.file.append(
                    {"training": name, "family": family.name, **_about(job), "accuracy": result}
                )
                self.known[name] = result
        return [failed[name] if name in failed else self.known[name] for name in names.values()]

    def _digest(self, family: TrainingFamily, job: TrainingRequest) -> str:
        """All that decides a training; how many run beside it does not."""
        parts = (
            registry.table(family.training),
            dict(self.conditions),
            _about(job),
            fingerprint(job.loss),
            job.key,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def open_cache(folder: Path, conditions: Mapping[str, str]) -> TrainingCache:
    """The memory in a folder that this process has locked; a last line that was cut off is dropped
    from its file.

    Raises:
        DamagedFile: a line does not check out; without the file, its trainings are made again.
    """
    file = storage.History(folder, FILE)
    known = {}
    for number, record in enumerate(file.mend(), 1):
        x = storage.typed_table(file.path, record, CachedTraining, f"line {number}")
        known[x["training"]] = math.nan if x["accuracy"] is None else x["accuracy"]
    return TrainingCache(file, conditions, known)


def fingerprint(part: Any) -> Any:
    """A loss as plain values whose `repr` differs for different losses.

    A formula becomes its text, a network its numbers.
    """
    if isinstance(part, Formulas):
        return [str(formula) for formula in part.formulas]
    if isinstance(part, Tensor):
        x = part.detach().cpu().contiguous()
        return str(x.dtype), tuple(x.shape), hashlib.sha256(x.numpy().tobytes()).hexdigest()
    if is_dataclass(part):
        return type(part).__qualname__, [
            (x.name, fingerprint(getattr(part, x.name))) for x in fields(part)
        ]
    if isinstance(part, Mapping):
        return [(key, fingerprint(value)) for key, value in part.items()]
    if isinstance(part, list | tuple):
        return [fingerprint(x) for x in part]
    if part is None or isinstance(part, str | int | float):
        return part
    return (
        part.__qualname__
        if hasattr(part, "__qualname__")
        else (type(part).__qualname__, fingerprint(vars(part)))
    )


def _about(job: TrainingRequest) -> dict[str, Any]:
    """A training in words, for who reads the file."""
    loss = str(job.loss.formulas[0]) if isinstance(job.loss, Formulas) else type(job.loss).__name__
    return {
        "loss": loss,
        "pool": job.pool,
        "seed": [job.key.seed, *job.key.path],
        "lr": job.lr,
        "steps": job.steps,
    }
