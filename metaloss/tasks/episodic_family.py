"""A family of episodes: its settings, read from TOML or made to fit a folder of images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core import registry
from metaloss.core.formatting import counted
from metaloss.data import places
from metaloss.data.datasets import Dataset, load, source_and_path
from metaloss.data.datasets._files import Files
from metaloss.data.datasets._images import (
    DEFAULT_OPTIONS,
    Background,
    ImageOptions,
    MaxPixels,
    Size,
)
from metaloss.data.datasets.folder import listed
from metaloss.data.features import check_spec
from metaloss.data.features.networks import is_network
from metaloss.data.groups import with_groups
from metaloss.data.noise import LabelNoise
from metaloss.data.pools import pools, shortage
from metaloss.data.shapes import ProportionalShots, ProportionalVal, Shots, Val, as_toml, of_ways
from metaloss.data.sizes import EpisodeShape, fits, in_every_pool, nearest, needed, reduced
from metaloss.data.versions import TaskAugmentation
from metaloss.data.views import View
from metaloss.errors import DataError, SettingsError
from metaloss.inner.classifiers import Classifier, Reversible
from metaloss.inner.loop import Inner
from metaloss.inner.metrics import Metric, MetricTable
from metaloss.tasks import uneven
from metaloss.tasks.family_files import written

LEAST = 2  # images of every class in every pool: one to train with, one to validate on


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TaskFamily:
    """The settings of a family; a TOML file holds all but its name and origin.

    Attributes:
        dataset: where the images come from, a data source or folder:PATH; or file:PATH, features
            and labels without images.
        ways: classes of a task.
        shots: images per class to train with: a number; [fewest, most], drawn for every task;
            { most = 50, least = 2 }, a long tail, whose order of classes is drawn for every task;
            or "as-is", the same share of every class.
        val: images per class to validate on: a number, or "as-is": classes as uneven as those to
            train with or, where these are even, as the data.
        noise: wrong labels to train with: a table with kind and share.
        augment: augmented versions of the images to train with: a table with the augmentation's
            kind and settings, and copies.
        view: how the images are shown: a table with `permutation`, the seed of another order of
            their pixels, and `inverted`, dark for bright; None: as they are.
        metric: what losses are scored by, a name or a table with the metric's kind and settings;
            None: accuracy.
        classifier: a table with the classifier's kind and settings.
        inner: a table with the settings of a training.
        features: what takes the place of the pixels: file:PATH, torchvision:NAME or timm:NAME.
        groups: a CSV file of images and their groups, such as patients: no group is in two pools or
            on both sides of a task.
        size: side of the square that every image becomes, in pixels; None: the data set's own size.
        background: what transparent pixels are laid on: "white", "black" or "#rrggbb".
        max_pixels: the most pixels that an image file may have; larger ones are refused before they
            are decoded.
        name: the family's.
        origin: the file that it stands in.
    """

    dataset: str
    ways: Annotated[int, Field(ge=2)]
    shots: Shots
    val: Val
    noise: LabelNoise = None
    augment: TaskAugmentation = None
    view: View = None
    metric: MetricTable = None
    classifier: dict[str, Any] = Field(default_factory=lambda: {"kind": "mlp"})
    inner: Inner = Field(default_factory=Inner)
    features: str = ""
    groups: str = ""
    size: Size = None
    background: Background = DEFAULT_OPTIONS.background
    max_pixels: MaxPixels = DEFAULT_OPTIONS.max_pixels
    name: str = ""
    origin: str = ""

    @property
    def image_options(self) -> ImageOptions:
        """How its images are read."""
        return ImageOptions(self.size, self.background, self.max_pixels)

    @property
    def sources(self) -> dict[str, str]:
        """Where its data come from, by their role in a run."""
        return places.sources_of(self.name, self.dataset, self.features)

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many classes a task may have."""
        return (self.ways,)

    @property
    def past_obstacle(self) -> str:
        """Why a loss cannot see what was predicted for an image before; "" where it can."""
        if self.inner.batch is not None:
            return f"inner.batch = {self.inner.batch}"
        return "" if self.augment is None else "augment"

    @property
    def gradient_obstacle(self) -> str:
        """What no gradient goes through; "" where one goes through its trainings."""
        if not isinstance(self.model(), Reversible):
            return f"trainings of the classifier '{self.classifier['kind']}'"
        if not self.inner.linear:
            return f"the optimiser '{self.inner.optimiser}', only through 'sgd'"
        return ""

    @property
    def screened_steps(self) -> int:
        """Steps of a training that a shorter one may stand in for."""
        return self.inner.steps

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The replaceable parts that it is made of, each as its kind and its name."""
        source = self.dataset.partition(":")[0]
        metric = [("metrics", self.metric["kind"])] if self.metric else []
        return [("datasets", source), ("classifiers", self.classifier["kind"]), *metric]

    def describe(self) -> str:
        """The family in a few words."""
        size = of_ways(self.ways, self.shots)
        noise = "" if self.noise is None else f" with {self.noise}"
        versions = "" if self.augment is None else f", {self.augment}"
        view = "" if self.view is None else f", {self.view}"
        by = f" by {self.features}" if self.features else ""
        metric = f", {self.metric['kind']}" if self.metric else ""
        return (
            f"{size} on {self.dataset}{by}{view}{noise}{versions}, {self.classifier['kind']}, "
            f"{self.inner.steps} steps{metric}"
        )

    def shape(self, available: Sequence[int], errors: Tensor | None = None) -> EpisodeShape:
        """The size of a task, the noise of its labels and the versions of its images.

        Args:
            available: how many images each class has in its smallest pool.
            errors: how often each class is taken for each other one, for noise that needs it.
        """
        return EpisodeShape(
            self.ways, self.shots, self.val, self.noise, tuple(available), errors, self.augment
        )

    def model(self) -> Classifier:
        """The classifier that the table `classifier` describes."""
        classifier: Classifier = registry.build(
            "classifiers", self.classifier, f"{self.origin}: classifier"
        )
        return classifier


def metric_for(family: TaskFamily, dataset: Dataset) -> Metric | None:
    """The family's metric for the classes of its data; None: accuracy.

    Raises:
        SettingsError: it does not fit them.
    """
    return None if family.metric is None else build_metric(family.metric, family, dataset)


def build_metric(table: Mapping[str, Any], family: TaskFamily, dataset: Dataset) -> Metric:
    """A metric for the classes of a family's data.

    Raises:
        SettingsError: it does not fit them.
    """
    metric: Metric = registry.build("metrics", table, f"{family.origin}: metric")
    try:
        return metric.for_classes(dataset.classes, family.ways)
    except SettingsError as error:
        raise SettingsError(f"{family.origin}: {error}") from None


# What a user may set of a family: all but what its file gives it.
EPISODE_SETTINGS = tuple(
    field for field in TaskFamily.__dataclass_fields__ if field not in ("name", "origin")
)


def read(spec: str, changes: Mapping[str, Any] | None = None) -> TaskFamily:
    """The family that NAME, PATH.toml, folder:PATH or file:PATH means.

    Args:
        spec: what names it.
        changes: settings that will replace its own. Where a folder or a file has no family, the
            others follow from them: the sizes of its tasks from `shots`, the pools from `groups`.

    Raises:
        SettingsError: no such family, or a file that does not describe one.
        DataError: folder:PATH holds too few images, of which none is opened; or file:PATH too few
            rows.
    """
    if spec.startswith(uneven.FROM_DATA):
        return _from_data(spec, changes or {})
    table, name, origin = written(spec)
    if table.get("kind") == "training":
        raise SettingsError(f"{origin} is a family of full trainings, and episodes are needed here")
    if table.get("kind") == "mixture":
        raise SettingsError(
            f"{origin} is a mixture of kinds of tasks, and tasks of one kind are needed here"
        )
    return of(table, name, origin)


def of(table: dict[str, Any], name: str, origin: str) -> TaskFamily:
    """A family made of a table of settings.

    Raises:
        SettingsError: names file and setting, what was given and what is allowed.
    """
    family: TaskFamily = registry.from_table(
        TaskFamily, {**table, "name": name, "origin": origin}, origin
    )
    family.model()
    if family.features:
        check_spec(family.features)
        if family.size and is_network(family.features):
            raise SettingsError(
                f"{origin}: size: {family.features} looks at images of its own size; leave out "
                f"size = {family.size}"
            )
    return family


def _from_data(spec: str, changes: Mapping[str, Any]) -> TaskFamily:
    _, (path,) = source_and_path(spec)
    is_folder = spec.startswith("folder:")
    dataset = listed(Path(path).expanduser()) if is_folder else load(spec)
    dataset = with_groups(dataset, changes.get("groups", ""))
    if few := shortage(dataset, LEAST):
        raise DataError(f"{spec}: {few}")
    smallest = _smallest(dataset)
    if smallest < LEAST:
        raise DataError(
            f"{spec}: groups leave a class {counted(smallest, 'image')} in one of its pools, and "
            f"{LEAST} are needed: one to train with and one to validate on. Each class needs "
            "images of several groups of about one size"
        )
    ways = min(len(dataset.classes), 10)
    training = dataset.labels[~dataset.test].bincount(minlength=len(dataset.classes)).tolist()
    as_is = "shots" not in changes and uneven.is_uneven(training)
    sizes = (
        uneven.as_is_settings(ways)
        if as_is
        else uneven.even_settings(ways, smallest, changes.get("shots"))
    )
    resolved = Path(path).resolve()
    return of({"dataset": spec, **sizes}, resolved.name if is_folder else resolved.stem, spec)


def fitted(
    family: TaskFamily, dataset: Dataset, rows: Sequence[Sequence[Tensor]] | None = None
) -> TaskFamily:
    """The family, with a number of validation images where it leaves that to the data.

    Args:
        family: the settings.
        dataset: all images.
        rows: those of each class of every pool, where they are known.

    Raises:
        DataError: a class of a pool lacks images for a task; names what was found and values that
            fit.
    """
    cut = [pool.rows for pool in pools(dataset).values()] if rows is None else rows
    asked = family.shape(available_images(family, dataset, cut))
    shape = asked
    if isinstance(shape.val, ProportionalVal) and shape.val.mean is None:
        shape = reduced(shape)
    if fits(shape):
        return replace(family, val=shape.val)
    classes = len(dataset.classes)
    scarce_classes = (
        f"{family.ways}-way needs {family.ways} classes, found {classes} ({_counts(dataset)})"
    )
    few = shortage(dataset, needed(shape), f" for {_sum(asked)} in every pool")
    reasons = ([] if family.ways <= classes else [scarce_classes]) + ([few] if few else [])
    message = f"{family.origin}: {'; '.join(reasons)}"
    proposal = nearest(asked) if classes >= 2 and min(asked.available) >= LEAST else asked
    if fits(proposal):
        values = (
            f"ways = {proposal.ways}, shots = {as_toml(proposal.shots)}, "
            f"val = {as_toml(proposal.val)}"
        )
        raise DataError(f"{message}. This fits: {values}")
    raise DataError(
        f"{message}. No task can be drawn: 2 classes with {LEAST} images in every pool are the "
        "least"
    )


def available_images(
    family: TaskFamily, dataset: Dataset, cut: Sequence[Sequence[Tensor]]
) -> list[int]:
    """How many images of each class tasks of every pool can count on.

    Args:
        family: where its tasks have the classes' own proportions, those are of the training images.
        dataset: all images.
        cut: for every pool, the rows of each class.
    """
    as_is = isinstance(family.shots, ProportionalShots) or isinstance(family.val, ProportionalVal)
    counts = [list(map(len, rows)) for rows in cut]
    return in_every_pool(counts, as_first=as_is and bool(dataset.test.any()))


def _sum(shape: EpisodeShape) -> str:
    """The sum that a class's images must reach, for a message."""
    if isinstance(shape.shots, int) and isinstance(shape.val, int):
        return f"shots + val = {shape.shots + shape.val}"
    return f"shots = {as_toml(shape.shots)} and val = {as_toml(shape.val)}"


def _smallest(dataset: Dataset | Files) -> int:
    """The number of images that the scarcest class has in its smallest pool."""
    return min(len(rows) for pool in pools(dataset).values() for rows in pool.rows)


def counts_in_words(classes: Sequence[str], counts: Sequence[int], most: int = 5) -> str:
    """The scarcest classes with their numbers of images."""
    pairs = sorted(zip(counts, classes, strict=True))
    listed = ", ".join(f"{name} {n}" for n, name in pairs[:most])
    return f"{listed}{', …' if len(pairs) > most else ''} images"


def _counts(dataset: Dataset | Files) -> str:
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).tolist()
    return counts_in_words(dataset.classes, counts)
