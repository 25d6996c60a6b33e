"""A mixture opened: its data sets loaded, its kinds drawn and made to fit them."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from metaloss.core.reporting import Reporter
from metaloss.data.episodes import Images
from metaloss.data.pools import pools
from metaloss.errors import DataNotFound
from metaloss.tasks import episodic_family
from metaloss.tasks.episodic import Episodes, open_episodes
from metaloss.tasks.episodic_family import fitted
from metaloss.tasks.mixture import Mixture
from metaloss.tasks.mixture_family import MixtureFamily
from metaloss.tasks.mixture_kinds import draw_kinds


def open_mixture(
    family: MixtureFamily,
    device: torch.device | str = "cpu",
    where: Mapping[str, str] | None = None,
    reporter: Reporter | None = None,
) -> Mixture:
    """Load a mixture's images onto a device, and draw its kinds.

    Args:
        family: the settings.
        device: where classifiers train.
        where: where its data lie, by their role, if not where the family says.
        reporter: is told of the images.

    Raises:
        DataError: none of its data sets is here, one is damaged, or a kind needs more images than
            there are.
        SettingsError: a data set has no images, or the metric does not fit the classes.
    """
    sets: dict[str, Episodes] = {}
    absent: list[str] = []
    for dataset in family.datasets:
        try:
            sets[dataset] = _open_set(family, dataset, device, where or {}, reporter)
        except DataNotFound as error:
            absent.append(dataset)
            missing = error
    if not sets:
        raise missing
    drawn = draw_kinds(family, {name: len(x.dataset.classes) for name, x in sets.items()})
    rows = {name: [x.rows for x in pools(opened.dataset).values()] for name, opened in sets.items()}
    kinds = []
    for kind in drawn:
        of_kind = sets[kind.family.dataset]
        settings = fitted(kind.family, of_kind.dataset, rows[kind.family.dataset])
        assert isinstance(of_kind.images, Images)
        # All kinds share the pixels of their data set.
        images = replace(of_kind.images, view=settings.view)
        kinds.append(replace(of_kind, family=settings, images=images))
        episodic_family.metric_for(settings, of_kind.dataset)
    factors = tuple(kind.factor for kind in drawn)
    return Mixture(family, tuple(sets.values()), tuple(kinds), factors, tuple(absent))


def _open_set(
    family: MixtureFamily,
    dataset: str,
    device: torch.device | str,
    where: Mapping[str, str],
    reporter: Reporter | None,
) -> Episodes:
    """A data set of a mixture, as a family of the smallest tasks."""
    table = {"dataset": dataset, "ways": 2, "shots": 1, "val": 1}
    role = family.role(dataset)
    smallest = episodic_family.of(table, role, family.origin)
    return open_episodes(smallest, device, where, reporter)
