"""The losses of a study: those that are named, and random formulas that pass a search's filters."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.base import Criterion
from metaloss.errors import SettingsError
from metaloss.genomes import Genome, SymbolicGenome
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.formula import Formula
from metaloss.search.novelty import NoveltyFilter, SeenLosses

RANDOM = re.compile(r"random:([1-9]\d{0,4})")
TRIES = 200  # draws of every formula, until one passes


def read(
    specs: Sequence[str], runs: str | Path, genome: dict[str, Any], key: Stream
) -> dict[str, nn.Module]:
    """The losses by label.

    Args:
        specs: names, paths, formulas, and "random:N".
        runs: where runs are looked for by name.
        genome: a table; what draws random formulas.
        key: of these draws.

    Raises:
        SettingsError: one cannot be read or has no formula or network that episodes could train
            with; two are the same; or there are no N random formulas.
    """
    losses: dict[str, nn.Module] = {}
    for label, loss in _all(specs, runs, genome, key):
        if not isinstance(loss, Criterion):
            raise SettingsError(
                f"{label} cannot be in a study: episodes need a loss of metaloss.load"
            )
        if label in losses:
            raise SettingsError(f"the loss '{label}' is given twice")
        losses[label] = loss
    return losses


def _all(
    specs: Sequence[str], runs: str | Path, genome: dict[str, Any], key: Stream
) -> Iterator[tuple[str, nn.Module]]:
    for spec in specs:
        if match := RANDOM.fullmatch(spec.strip()):
            yield from ((str(x), loss_io.load(x)) for x in drawn(int(match[1]), genome, key))
        else:
            yield spec.strip(), loss_io.load(spec.strip(), runs)


def drawn(n: int, genome: dict[str, Any], key: Stream) -> list[Formula]:
    """n random formulas of a genome, no two of which look alike, that its filters pass.

    Raises:
        SettingsError: the genome has no formulas, or not so many were found.
    """
    space: Genome = registry.build("genomes", genome, "genome")
    if not isinstance(space, SymbolicGenome):
        raise SettingsError(f"genome '{genome['kind']}' draws no formulas; graph and tree do")
    novelty_filter = NoveltyFilter(space, SeenLosses(space.filters), tries=TRIES)
    novelty_filter.start_generation()
    population = novelty_filter.sample(n, key)
    # Places for which nothing passed hold refused candidates, which are left out.
    losses = novelty_filter.losses(population[space.valid(population) == 0])
    assert isinstance(losses, Formulas)
    formulas = list({str(x): x for x in losses.formulas}.values())
    if len(formulas) < n:
        raise SettingsError(
            f"random:{n}: only {len(formulas)} different formulas passed the filters"
        )
    return formulas
