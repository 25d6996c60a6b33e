"""A mixture of kinds of episodes: the ranges that the settings of its kinds are drawn from."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss.core import registry
from metaloss.data.datasets import source_and_path
from metaloss.data.places import is_path_source
from metaloss.data.shapes import ascending
from metaloss.data.versions import TaskAugment, TaskAugmentation
from metaloss.errors import SettingsError
from metaloss.inner.classifiers import Reversible
from metaloss.inner.metrics import MetricTable

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _between(least: float, most: float, kind: type) -> Callable[[Any], Any]:
    """A validator of a range; one number stands for a range without width."""

    def validate(value: Any) -> Any:
        pair = value if isinstance(value, list | tuple) else (value, value)
        return ascending(pair, least, most, kind)

    return validate


Whole = tuple[int, int]
Real = tuple[float, float]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Ranges:
    """Between which numbers the settings of a kind lie; one number stands for a fixed setting.

    Attributes:
        steps: of a training; even on a logarithmic scale.
        lr: the learning rate; even on a logarithmic scale. None: it follows from `lr_factor`.
        lr_factor: how many times cross-entropy's best learning rate of the kind its tasks train
            with; even on a logarithmic scale. None: 0.3 to 3, unless there is `lr`.
        shots: training images per class; even on a logarithmic scale.
        ways: classes of a task.
        width: of the first hidden layer, rounded to a multiple of 16; each further layer has half
            as many units; even on a logarithmic scale.
        images_seen: steps times training images, at most: a kind that would see more has fewer
            shots, so that a few kinds do not take most of the time.
        depth: hidden layers; a kind without any is a linear classifier.
        convolutional: the share of kinds whose classifier is a small convolutional network of two
            stages in place of a perceptron; none of them has its pixels in another order.
        filters: of its first stage; the second one has twice as many; even on a logarithmic scale.
        convolutional_images_seen: the same as `images_seen` for such kinds, whose images take far
            more work each; where even the fewest shots are too many they have fewer steps.
        init_scale: what initial weights are multiplied by, but a linear layer's, which are 0; even
            on a logarithmic scale.
        noise: the share of wrong labels, drawn anew for each noisy kind.
        noisy: the share of kinds that have wrong labels.
        augment: augmentations, of which an augmented kind has one.
        augmented: the share of kinds that are augmented.
        permuted: the share of kinds whose pixels stand in an order of the kind's own.
        inverted: the share of kinds whose images are dark for bright.
    """

    steps: Annotated[Whole, BeforeValidator(_between(1.0, 1e5, int))] = (10, 400)
    lr: Annotated[Real, BeforeValidator(_between(1e-6, 1e3, float))] | None = None
    lr_factor: Annotated[Real, BeforeValidator(_between(1e-3, 1e3, float))] | None = None
    shots: Annotated[Whole, BeforeValidator(_between(1.0, 1e5, int))] = (1, 50)
    ways: Annotated[Whole, BeforeValidator(_between(2.0, 1e5, int))] = (2, 10)
    width: Annotated[Whole, BeforeValidator(_between(1.0, 65_536.0, int))] = (32, 128)
    images_seen: Count = 40_000
    depth: Annotated[Whole, BeforeValidator(_between(0.0, 16.0, int))] = (1, 3)
    convolutional: Share = 0.0
    filters: Annotated[Whole, BeforeValidator(_between(1.0, 512.0, int))] = (8, 16)
    convolutional_images_seen: Count = 1_000
    init_scale: Annotated[Real, BeforeValidator(_between(1e-3, 1e3, float))] = (0.5, 2.0)
    noise: Annotated[Real, BeforeValidator(_between(0.0, 1.0, float))] = (0.05, 0.4)
    noisy: Share = 0.4
    augment: tuple[TaskAugmentation, ...] = (
        TaskAugment(kind="shift", copies=4, pad=2),
        TaskAugment(kind="cutout", copies=4, pad=2, patch=10, flip=False),
        TaskAugment(kind="mixup", copies=4, pad=2, flip=False),
    )
    augmented: Share = 0.25
    permuted: Share = 0.25
    inverted: Share = 0.25


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class MixtureFamily:
    """The settings of a mixture; a TOML file holds all but its name and origin.

    Its kinds are drawn once, from its own seed: which they are does not depend on a run.

    Attributes:
        kind: "mixture".
        datasets: where kinds have their images from, each one of those that are here; one at least
            must be.
        kinds: how many kinds there are.
        kinds_seed: of the draw of the kinds.
        tasks_per_kind: tasks of a kind that follow one another: a generation of 8 tasks meets 4
            kinds where it is 2.
        val: images per class to validate on.
        reference_tasks: tasks of each kind, of the meta-training pool, on which cross-entropy's
            best rate for it is found.
        ranges: what the settings of a kind are drawn from.
        metric: what losses are scored by, as in a family of episodes; None: accuracy.
        name: the family's.
        origin: the file that it stands in.
    """

    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    kind: Literal["mixture"] = "mixture"
    kinds: Annotated[int, Field(ge=2, le=10_000)] = 64
    kinds_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    tasks_per_kind: Count = 2
    val: Count = 100
    reference_tasks: Annotated[int, Field(ge=2, le=10_000)] = 8
    ranges: Ranges = Field(default_factory=Ranges)
    metric: MetricTable = None
    name: str = ""
    origin: str = ""

    @property
    def sources(self) -> dict[str, str]:
        """Where its data come from, by their role in a run."""
        return {self.role(dataset): dataset for dataset in self.datasets}

    def role(self, dataset: str) -> str:
        """The role of one of its data sets in a run."""
        return f"{self.name} {dataset}"

    @property
    def class_counts(self) -> tuple[int, ...]:
        """How many classes a task may have."""
        fewest, most = self.ranges.ways
        return tuple(range(fewest, most + 1))

    @property
    def past_obstacle(self) -> str:
        """Why a loss cannot see what was predicted for an image before; "" where it can."""
        return f"ranges.augmented = {self.ranges.augmented}" if self.ranges.augmented else ""

    @property
    def gradient_obstacle(self) -> str:
        """What no gradient goes through; "" where one goes through its trainings."""
        for kind in self._classifiers:
            if not issubclass(registry.part("classifiers", kind), Reversible):
                return f"trainings of the classifier '{kind}'"
        return ""

    @property
    def screened_steps(self) -> int:
        """0: kinds are as long as they are, and no one number of steps stands in for them."""
        return 0

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The replaceable parts that it is made of, each as its kind and its name."""
        sources = [("datasets", dataset.partition(":")[0]) for dataset in self.datasets]
        metric = [("metrics", self.metric["kind"])] if self.metric else []
        return [*sources, *(("classifiers", x) for x in self._classifiers), *metric]

    @property
    def _classifiers(self) -> list[str]:
        """The kinds of its classifiers."""
        fewest, most = self.ranges.depth
        share = self.ranges.convolutional
        there = {"linear": fewest == 0 and share < 1, "mlp": most > 0 and share < 1, "cnn": share}
        return [kind for kind, is_there in there.items() if is_there]

    def describe(self) -> str:
        """The family in a few words."""
        ranges = self.ranges
        metric = f", {self.metric['kind']}" if self.metric else ""
        return (
            f"a mixture of {self.kinds} kinds of tasks on {', '.join(self.datasets)}: "
            f"{_words(ranges.ways)}-way, {_words(ranges.shots)} images of each class, "
            f"{' and '.join(self._classifiers)}, "
            f"{_words(ranges.steps)} steps{metric}"
        )


def _words(pair: Whole) -> str:
    fewest, most = pair
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def of(table: Mapping[str, Any], name: str, origin: str) -> MixtureFamily:
    """A family made of a table of settings.

    Raises:
        SettingsError: names file and setting, what was given and what is allowed.
    """
    family: MixtureFamily = registry.from_table(
        MixtureFamily, {**table, "name": name, "origin": origin}, origin
    )
    for dataset in family.datasets:
        try:
            source_and_path(dataset)
        except SettingsError as error:
            raise SettingsError(f"{origin}: datasets: {error}") from None
        if is_path_source(dataset) and not dataset.startswith("folder:"):
            raise SettingsError(f"{origin}: datasets: a mixture needs images, got '{dataset}'")
    if twice := [x for x in family.datasets if family.datasets.count(x) > 1]:
        raise SettingsError(f"{origin}: datasets: '{twice[0]}' is named twice")
    if family.ranges.lr and family.ranges.lr_factor:
        raise SettingsError(
            f"{origin}: ranges.lr and ranges.lr_factor: the first is a learning rate, the second "
            "a multiple of cross-entropy's best one: give one of them"
        )
    if family.ranges.augmented and not any(family.ranges.augment):
        raise SettingsError(
            f"{origin}: ranges.augmented = {family.ranges.augmented:g} needs augmentations in "
            "ranges.augment"
        )
    return family
