"""The losses of a comparison: read, named, and traced to where each came from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.core.formatting import printable
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.criterion.leakage import Origin, is_named, origin_of
from metaloss.errors import SettingsError
from metaloss.evaluation.variants import Variants
from metaloss.losses import zoo
from metaloss.losses.base import past_refused
from metaloss.losses.published_loss import PublishedLoss
from metaloss.search.run_folder import Run, find
from metaloss.storage.folders import short_digest
from metaloss.tasks.opening import OpenFamily

# Always there: what a gain over any baseline is worth shows beside cross-entropy with more steps.
CE = "ce"
LABEL = 60  # characters


@dataclass(frozen=True)
class ComparedLoss:
    """A loss in a comparison.

    Attributes:
        label: the name that its table shows.
        criterion: the loss.
        run: the run it came from; None where none is to be found here.
        origin: where it comes from.
        published: the published loss whose own parameters are tuned with its rate; None: none are.
    """

    label: str
    criterion: Criterion
    run: Run | None
    origin: Origin = field(default_factory=Origin)
    published: PublishedLoss | None = None

    @property
    def name(self) -> str:
        """The published or shipped loss that it is; "" for all others."""
        return self.origin.name

    @property
    def specs(self) -> list[str]:
        """How it is written with each choice of its own parameters; none where they stay."""
        return self.published.variants if self.published else []

    @property
    def formula(self) -> str:
        """Its formula; with the names of parameters that are tuned."""
        return self.published.text if self.published else self.criterion.describe()

    @property
    def trials(self) -> int:
        """How many losses its tuning tries, each at every rate."""
        return len(self.specs) or 1

    def with_parameters(self, spec: str) -> Criterion:
        """The loss as it is written with its own parameters; as it is where the text is empty."""
        loss = loss_io.load(spec) if spec else self.criterion
        assert isinstance(loss, Criterion)
        return loss

    def variants(self) -> Variants:
        """The losses among which the best is chosen: itself alone where no parameters are tuned."""
        if not self.published:
            return {"": self.criterion.losses_as_used()}
        return {spec: self.with_parameters(spec).losses_as_used() for spec in self.specs}


def read_losses(
    losses: Sequence[Any], baseline_spec: str, runs: Path, own: bool = False
) -> tuple[list[ComparedLoss], str]:
    """The losses that are asked for, the baseline and cross-entropy, each once; and the baseline's
    label.

    Args:
        losses: runs, files, published losses by name, formulas or criteria.
        baseline_spec: the baseline.
        runs: where runs are looked for.
        own: whether published losses named without parameters have theirs tuned.

    Raises:
        SettingsError: one cannot be read, or cannot train episodes.
    """
    compared: list[ComparedLoss] = []
    for spec in losses:
        compared.append(_read_loss(spec, runs, {x.label for x in compared}, own))
    baseline = ""
    for spec in (CE, baseline_spec):
        # Without the labels in use: a loss that is there already must get its label again, not #2.
        loss = _read_loss(spec, runs, set(), own)
        baseline = loss.label
        if loss.label not in {x.label for x in compared}:
            compared.append(loss)
    return compared, baseline


def _read_loss(spec: Any, runs: Path, used_labels: set[str], own: bool) -> ComparedLoss:
    loss = loss_io.load(spec, runs)
    if not isinstance(loss, Criterion):
        raise SettingsError(
            f"{type(loss).__name__} cannot be compared: episodes need a loss of metaloss.load"
        )
    origin = origin_of(spec, loss, runs)
    known_name = origin.name
    run = _run_of(origin)
    label = known_name or printable(_label(spec, loss, run)).strip()
    # A label that only looks like a published name is shown as a path.
    label = f"./{label}" if loss_io.named(label) and not is_named(loss, label) else label
    # Two long formulas may begin alike.
    label = label if len(label) <= LABEL else f"{label[: LABEL - 9]}…{short_digest(label)}"
    numbers = (f"{label} #{n}" for n in range(2, len(used_labels) + 3))
    unused = next(x for x in (label, *numbers) if x not in used_labels)
    return ComparedLoss(unused, loss, run, origin, tunable(spec) if own else None)


def tunable(spec: Any) -> PublishedLoss | None:
    """The published loss that is named without parameters, where it has some to tune."""
    if not isinstance(spec, str) or not zoo.published(spec):
        return None
    entry, parameters = zoo.named(spec)
    return entry if entry.grid and not parameters else None


def _run_of(origin: Origin) -> Run | None:
    """The run that a loss came from; None where none is to be found here."""
    try:
        return find(origin.folder) if origin.folder else None
    except SettingsError:  # its settings are none of a search
        return None


def _label(spec: Any, loss: Criterion, run: Run | None) -> str:
    if run is not None:
        return run.name
    if isinstance(spec, str | Path):
        return Path(spec).name if storage.exists(Path(spec)) else str(spec)
    return str(loss.about.get("name") or loss.about.get("run") or loss.describe())


def check_fit(compared: Sequence[ComparedLoss], families: Sequence[OpenFamily]) -> None:
    """Refuse a loss that is made for another number of classes than a family has, or reads what the
    family cannot show it.

    Raises:
        SettingsError: names both.
    """
    for loss in compared:
        for episodes in families:
            others = [n for n in episodes.class_counts if loss.criterion.classes not in (None, n)]
            if others:
                ways = f"{episodes.family.name} has {others[0]}-way tasks"
                raise SettingsError(
                    f"{loss.label} works for {loss.criterion.classes} classes alone, and {ways}"
                )
            if loss.criterion.reads_past and (obstacle := episodes.family.past_obstacle):
                raise past_refused(episodes.family.name, obstacle)
