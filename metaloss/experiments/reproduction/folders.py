"""The trainings under a folder: their settings, which losses they have, and what came out."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.core.reporting import Reporter
from metaloss.criterion import loss_io
from metaloss.criterion.formula import FormulaCriterion
from metaloss.criterion.no_formula import NamedCriterion
from metaloss.errors import MetalossError, SettingsError
from metaloss.experiments.reproduction.cells import CellSpec
from metaloss.training import folders
from metaloss.training.losses import name_losses, read_loss
from metaloss.training.settings import Training


@dataclass(frozen=True)
class TrainingFolder:
    """A training's folder.

    Attributes:
        folder: where it lies.
        settings: its settings.
        labels: its losses' labels by what they compute.
        rows: by label, what they came to; empty while it is not finished.
    """

    folder: Path
    settings: Training
    labels: dict[str, str]
    rows: dict[str, dict[str, Any]]

    def row(self, loss: str) -> dict[str, Any] | None:
        """What a loss came to; None where it was not trained here, or is not finished."""
        return self.rows.get(self.labels.get(loss_identity(loss), ""))


def identity(loss: nn.Module) -> str:
    """What a loss computes: the same for all ways to write it.

    Empty for a network.
    """
    if isinstance(loss, NamedCriterion):
        return loss.describe()
    return loss.formula.digest if isinstance(loss, FormulaCriterion) else ""


@cache
def loss_identity(loss: str) -> str:
    """What a published loss computes."""
    return identity(loss_io.load(loss))


def training_folders(parent: Path, reporter: Reporter) -> list[TrainingFolder]:
    """All trainings under a folder by name; the reporter is warned of one that cannot be read."""
    folders_read = []
    for path in sorted(parent.glob("*/config.toml")):
        try:
            folders_read.append(_read(path.parent, parent))
        except MetalossError as error:
            reporter.on_warning(f"left out: {error}")
    return folders_read


def _read(folder: Path, parent: Path) -> TrainingFolder:
    _, settings = folders.find(folder, parent)
    summary = folders.summary(folder)
    labels = {}
    for named in name_losses(settings.loss, [nn.Identity()] * len(settings.loss), 0):
        # Handed over as an object, and nothing that a table names.
        with contextlib.suppress(SettingsError):
            labels[identity(read_loss(folder, named))] = named.label
    return TrainingFolder(
        folder, settings, labels, {row["loss"]: row for row in summary["table"]} if summary else {}
    )


def nearest_finished(
    spec: CellSpec, loss: str, trainings: Sequence[TrainingFolder], seeds: int = 1
) -> TrainingFolder | None:
    """The finished training of a loss that is nearest to what is wanted; of equal ones that with
    most seeds, the last.

    Args:
        spec: what is wanted.
        loss: the loss.
        trainings: all trainings.
        seeds: how many it must have at least.
    """
    candidates = [
        x
        for x in trainings
        if spec.has(x.settings) and (row := x.row(loss)) is not None and row["n"] >= seeds
    ]
    return max(
        candidates,
        key=lambda x: (-spec.distance(x.settings), x.settings.seeds, trainings.index(x)),
        default=None,
    )


def unfinished(
    spec: CellSpec, losses: Sequence[str], trainings: Sequence[TrainingFolder]
) -> list[tuple[TrainingFolder, list[str]]]:
    """Interrupted trainings just as wanted, and which of these losses they have."""
    known = {loss_identity(x): x for x in losses}
    candidates = [x for x in trainings if not x.rows and not spec.distance(x.settings)]
    candidates = [
        x
        for x in candidates
        if (x.settings.seed, x.settings.seeds) == (spec.wanted.seed, spec.wanted.seeds)
    ]
    with_losses = [(x, [known[i] for i in x.labels if i in known]) for x in candidates]
    return [(x, losses) for x, losses in with_losses if losses]
