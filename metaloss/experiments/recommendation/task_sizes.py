"""How large the tasks of a recommendation are, and that they fit into every fold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metaloss.core import registry
from metaloss.data import datasets
from metaloss.data.datasets._images import ImageOptions
from metaloss.data.shapes import ProportionalShots, as_toml, of_ways
from metaloss.data.sizes import EpisodeShape, fits, most_val, nearest, reduced
from metaloss.errors import DataError, SettingsError
from metaloss.tasks import episodic_family, family_files
from metaloss.tasks.episodic_family import TaskFamily
from metaloss.tasks.uneven import FROM_DATA, as_is_settings

# Of a task, at most, where no family says it: all ours, so that it takes minutes.
WAYS = 10
SHOTS = 10
VAL = 100

# Of every fold: how many images each class has in it, and outside.
FoldSizes = Sequence[tuple[Sequence[int], Sequence[int]]]


def uneven_family(spec: str, classes: int, folds: int) -> TaskFamily:
    """A family for uneven data without one: all images in their own proportions.

    Args:
        spec: what names the data.
        classes: how many it has.
        folds: of as many parts one is left to validate on.
    """
    sizes = as_is_settings(min(WAYS, classes), round(1 - 1 / folds, 3))
    return episodic_family.of({"dataset": spec, **sizes}, _name(spec), spec)


def even_family(spec: str, classes: int, images: int) -> TaskFamily:
    """A family for even data without one, of so many classes and images of the smallest."""
    # A third at most to train on, so that enough are left to validate.
    shots = min(SHOTS, max(1, images // 3))
    sizes = {"ways": min(WAYS, classes), "shots": shots, "val": min(VAL, images - shots)}
    return episodic_family.of({"dataset": spec, **sizes}, _name(spec), spec)


def _name(spec: str) -> str:
    """What a family is called that is made to fit some data."""
    kind, _, path = spec.partition(":")
    if not path:
        return spec
    return Path(path).resolve().stem if kind == "file" else Path(path).resolve().name


def fitted(family: TaskFamily, sizes: FoldSizes, spec: str, counts: str) -> TaskFamily:
    """The family with as many validation images as every choice of a fold has left.

    Args:
        family: its settings.
        sizes: of the folds.
        spec: what names the data, for the message.
        counts: how many images the classes have, for the message.

    Raises:
        DataError: a task does not fit whatever it validates on.
    """

    def accepts(shape: EpisodeShape) -> bool:
        return all(fits(replace(shape, available=tuple(outside))) for _, outside in sizes)

    shape = reduced(family.shape(sizes[0][1]), accepts)
    if accepts(shape):
        return replace(family, val=shape.val)
    rarest = min(min(outside) for _, outside in sizes)
    scarce = family.shape(min((outside for _, outside in sizes), key=min))
    proposal = nearest(scarce)
    raise DataError(
        f"{spec}: {of_ways(family.ways, family.shots)} tasks do not fit: "
        f"{len(sizes[0][1])} classes, and {rarest} images of the smallest one outside a fold "
        f"({counts}). This fits: ways = {proposal.ways}, shots = {as_toml(proposal.shots)}"
    )


def judging(family: TaskFamily, sizes: FoldSizes) -> TaskFamily:
    """The family that judges a choice: a fold may hold fewer images than a choice validates on."""

    def accepts(shape: EpisodeShape) -> bool:
        return all(
            n <= have
            for inside, outside in sizes
            for n, have in zip(
                most_val(replace(shape, available=tuple(outside))), inside, strict=True
            )
        )

    return replace(family, val=reduced(family.shape(sizes[0][1]), accepts).val)


def drawn_as_is(family: TaskFamily) -> bool:
    """Whether tasks have their classes in the proportions of the data."""
    return isinstance(family.shots, ProportionalShots)


def image_options(changes: Mapping[str, Any]) -> ImageOptions:
    """How images are read for which no family is written."""
    named = {name: changes[name] for name in ImageOptions.__dataclass_fields__ if name in changes}
    options: ImageOptions = registry.from_table(ImageOptions, named, "recommend")
    return options


def named_family(spec: str) -> TaskFamily:
    """The family that a name means.

    Raises:
        SettingsError: there is none.
    """
    known = {*family_files.names(), *datasets.names()} - {"file", "folder"}
    if spec not in known and not any(x in spec for x in "/:."):
        raise SettingsError(
            registry.unknown_message(
                "data", spec, sorted(known), "metaloss list data, tasks; or folder:PATH"
            )
        )
    return episodic_family.read(spec)


def without_family(spec: str) -> bool:
    """Whether a name is a folder's, a file's or a data set's for which no family is written."""
    return spec.startswith(FROM_DATA) or (
        spec in datasets.names() and spec not in family_files.names()
    )
