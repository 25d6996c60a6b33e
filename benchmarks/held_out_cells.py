"""One loss, or rivals of which the best is chosen, on one kind of tasks, for `held_out_kinds`."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from held_out_store import Store
from held_out_tasks import Kind
from held_out_trainings import KindTrainings, Variants, best_until, trainings_of_tuning

from metaloss.evaluation.statistics import Resamples
from metaloss.evaluation.tuning import Setting
from metaloss.losses.base import reads_clock

CE = "cross-entropy"
SMOOTHING = "label smoothing"
PUBLISHED = "published"
RIVALS = (SMOOTHING, PUBLISHED)
# Further numbers of steps that cross-entropy may stop at.
BETWEEN = (30, 70, 150, 300)
# Where the loss's own rate is changed, and by which factors.
CHANGED_AT = (100, 200, 400)
FACTORS = (1 / 3, 3.0)


@dataclass(frozen=True)
class Job:
    """A loss, or rivals of which the best one is chosen, on the tasks of a kind.

    Attributes:
        kind: of the tasks.
        loss: its name.
        changed: whether its best rates are changed; else it is tuned and tested.
    """

    kind: Kind
    loss: str
    changed: bool = False

    @property
    def key(self) -> dict[str, Any]:
        """What tells its row of a store from others."""
        return {"what": "changed" if self.changed else "measured", **about(self.kind, self.loss)}

    @property
    def steps(self) -> tuple[int, ...]:
        """The numbers of steps that are tuned."""
        kind = self.kind
        if self.changed:
            return tuple(n for n in kind.steps if n in CHANGED_AT)
        if self.loss == CE:
            between = (n for n in BETWEEN if kind.steps[0] < n < kind.steps[-1])
            return tuple(sorted({*kind.steps, *between}))
        return kind.rivals_at if self.loss in RIVALS else kind.steps

    def cost(self, variants: Variants) -> float:
        """Microseconds of one core, about."""
        clock = any(map(reads_clock, variants.values()))
        steps = sum(self.steps) if clock else max(self.steps)
        tests = self.kind.tasks * (4 if self.changed else 2)
        tuning = 0 if self.changed else trainings_of_tuning(self.kind, len(variants))
        return (tuning + tests) * steps * self.kind.step_cost()


def about(kind: Kind, loss: str) -> dict[str, Any]:
    """What rows of a kind and a loss say of themselves."""
    return {
        "kind": kind.name,
        "loss": loss,
        "tasks": kind.tasks,
        "tuning": kind.tuning,
        "of": list(kind.steps),
    }


@dataclass
class OnKind:
    """What is measured on the tasks of one kind.

    Attributes:
        trainings: on its tasks.
        store: what is measured already.
        known: what was read of it, by the loss.
    """

    trainings: KindTrainings
    store: Store
    known: dict[str, "Known"] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Of the tasks."""
        return self.trainings.kind

    @cached_property
    def resamples(self) -> Resamples:
        """Of the meta-test tasks and their images."""
        return self.trainings.evaluation.test_resamples(self.kind.tasks)

    def measured(self, job: Job, variants: Variants) -> dict[str, Any]:
        """A loss's best settings, and its answers with them, which the store takes."""
        best = self.trainings.tune(variants, job.steps)
        needed = list(best.values())
        if job.loss == CE:
            needed = [x for n in self.kind.steps for x in (best[n], best_until(best, n))]
        settings = list(dict.fromkeys(needed))
        self.store.keep_answers(job.key, self.trainings.answers(variants, settings))
        return {"settings": [x.plain() for x in settings]}

    def changed(self, job: Job, variants: Variants) -> dict[str, Any]:
        """What a loss's accuracy changes by where its best rates are multiplied."""
        known = self._known(job.loss)
        own = [known.at(n) for n in job.steps]
        asked = [Setting(x.lr * f, x.steps, spec=x.spec) for x in own for f in FACTORS]
        answers = iter(self.trainings.answers(variants, asked))
        changes = [
            {
                "steps": x.steps,
                "lr": x.lr,
                "factor": f,
                **self._difference(next(answers), known.answers[x]),
            }
            for x in own
            for f in FACTORS
        ]
        return {"images": self.kind.images, "shots": self.kind.shots, "changes": changes}

    def cell(self, loss: str, steps: int) -> dict[str, Any]:
        """A loss beside cross-entropy and the rivals, after so many steps."""
        kind = self.kind
        ours, ce = self._known(loss), self._known(CE)
        setting = ours.at(steps)
        others = {"ce": (ce, ce.at(steps)), "ce_steps": (ce, best_until(ce.by_steps, steps))}
        if steps in kind.rivals_at:
            others |= {x: (self._known(x), self._known(x).at(steps)) for x in RIVALS}
        mine = ours.answers[setting]
        return {
            "part": kind.part,
            "images": kind.images,
            "network": kind.network,
            "shots": kind.shots,
            "setting": setting.plain(),
            "edge": setting.lr in (min(kind.rates), max(kind.rates)),
            "score": float(mine.mean()),
            "versus": {
                name: {
                    "setting": theirs.plain(),
                    "score": float(known.answers[theirs].mean()),
                    **self._difference(mine, known.answers[theirs]),
                }
                for name, (known, theirs) in others.items()
            },
        }

    def _known(self, loss: str) -> "Known":
        """What the store has of a loss; read once, for all numbers of steps."""
        if loss not in self.known:
            self.known[loss] = self._read(loss)
        return self.known[loss]

    def _read(self, loss: str) -> "Known":
        key = Job(self.kind, loss).key
        row = self.store.find(key)
        settings = [
            Setting(x["lr"], x["steps"], x["accuracy"], x.get("spec", "")) for x in row["settings"]
        ]
        return Known(dict(zip(settings, self.store.answers(key), strict=True)))

    def _difference(self, ours: Any, theirs: Any) -> dict[str, float]:
        """A paired difference with the interval over tasks and images."""
        found = self.trainings.evaluation.compare(ours, theirs, self.resamples)
        return {"mean": found.gain.mean, "low": found.low, "high": found.high, "p": found.p}


@dataclass(frozen=True)
class Known:
    """What a loss answers on the meta-test tasks of a kind, with its best settings.

    Attributes:
        answers: by the setting.
    """

    answers: dict[Setting, Any]

    @property
    def by_steps(self) -> dict[int, Setting]:
        """The settings by their numbers of steps."""
        return {x.steps: x for x in self.answers}

    def at(self, steps: int) -> Setting:
        """The best setting with so many steps."""
        return self.by_steps[steps]
