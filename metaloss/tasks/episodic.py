"""Task families: what to draw episodes from and how to train on them, read from TOML."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from jaxtyping import Float, Int64
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core import reading, registry, suggestions
from metaloss.core.streams import Stream
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
from metaloss.data.episodes import EpisodeShape, Images, Pool, Tasks, draw
from metaloss.data.pools import pools, shortage
from metaloss.errors import DataError, SettingsError
from metaloss.inner.classifiers import Classifier
from metaloss.inner.loop import Inner
from metaloss.inner.metrics import Metric
from metaloss.inner.metrics import scores as accuracies
from metaloss.inner.optimisers import Rate
from metaloss.losses.base import Losses
from metaloss.tasks.protocols import Engine, FamilyCost, SearchBudget
from metaloss.tasks.provenance import describe_images
from metaloss.tasks.step_counts import step_grid, training_lengths

SHIPPED = Path(__file__).parents[1] / "_families"  # where an installation has them
LEAST = 2  # images of every class in every pool: one to train with, one to validate on
TIMED_TRAININGS = 64  # trainings of every example that an estimate is timed on
STEP_GRID_COST = 12  # tuning the number of steps costs as much as so many rates
CHECKOUT = Path(__file__).parents[2] / "tasks"


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TaskFamily:
    """The settings of a family; a TOML file holds all but its name and origin.

    Attributes:
        dataset: where the images come from, a data source or folder:PATH.
        ways: classes of a task.
        shots: images per class to train with.
        val: images per class to validate on.
        label_noise: share of the training labels that are drawn anew.
        classifier: a table with the classifier's kind and settings.
        inner: a table with the settings of a training.
        size: side of the square that every image becomes, in pixels; None: the data set's own size.
        background: what transparent pixels are laid on: "white", "black" or "#rrggbb".
        max_pixels: the most pixels that an image file may have; larger ones are refused before they
            are decoded.
        name: the family's.
        origin: the file that it stands in.
    """

    dataset: str
    ways: Annotated[int, Field(ge=2)]
    shots: Annotated[int, Field(ge=1)]
    val: Annotated[int, Field(ge=1)]
    label_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    classifier: dict[str, Any] = Field(default_factory=lambda: {"kind": "mlp"})
    inner: Inner = Field(default_factory=Inner)
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
    def class_count(self) -> int | None:
        """How many classes a task has."""
        return self.ways

    @property
    def screened_steps(self) -> int:
        """Steps of a training that a shorter one may stand in for."""
        return self.inner.steps

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The replaceable parts that it is made of, each as its kind and its name."""
        source = self.dataset.partition(":")[0]
        return [("datasets", source), ("classifiers", self.classifier["kind"])]

    def describe(self) -> str:
        """The family in a few words."""
        return (
            f"{self.ways}-way {self.shots}-shot on {self.dataset}, {self.classifier['kind']}, "
            f"{self.inner.steps} steps"
        )

    def model(self) -> Classifier:
        """The classifier that the table `classifier` describes."""
        classifier: Classifier = registry.build(
            "classifiers", self.classifier, f"{self.origin}: classifier"
        )
        return classifier


# What a user may set of a family: all but what its file gives it.
EPISODE_SETTINGS = tuple(
    field for field in TaskFamily.__dataclass_fields__ if field not in ("name", "origin")
)


def names() -> dict[str, Path]:
    """Every family that a bare NAME finds: in ./tasks, then in the package."""
    found: dict[str, Path] = {}
    for folder in (Path("tasks"), SHIPPED, CHECKOUT):
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def read(spec: str) -> TaskFamily:
    """The family that NAME, PATH.toml or folder:PATH means.

    Raises:
        SettingsError: no such family, or a file that does not describe one.
        DataError: folder:PATH holds too few images; none is opened.
    """
    if spec.startswith("folder:"):
        return _from_folder(spec)
    table, name, origin = written(spec)
    if table.get("kind") == "training":
        raise SettingsError(f"{origin} is a family of full trainings, and episodes are needed here")
    return of(table, name, origin)


def written(spec: str) -> tuple[dict[str, Any], str, str]:
    """The table of the file that NAME or PATH.toml means, the family's name, and the file's path.

    Raises:
        SettingsError: no such family, or a file that is no table of settings.
    """
    path = Path(spec) if spec.endswith(".toml") or "/" in spec else names().get(spec)
    if spec.startswith("voc:") or (spec == "voc" and path is None):
        load(spec)  # which refuses, and says why
    if path is None:
        raise SettingsError(
            registry.unknown_message("task family", spec, names(), "metaloss list tasks")
        )
    if spec not in names() and (folder := suggestions.folder(spec)):
        raise SettingsError(f"{spec} is no task family. {folder}")
    try:
        table = reading.read_toml(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(f"{path}: cannot be read as a task family: {reason}") from None
    reserved = {"name", "origin"} & table.keys()
    if reserved:
        raise SettingsError(f"{path}: unknown setting '{min(reserved)}'")
    return table, path.stem, str(path)


def of(table: dict[str, Any], name: str, origin: str) -> TaskFamily:
    """A family made of a table of settings.

    Raises:
        SettingsError: names file and setting, what was given and what is allowed.
    """
    family: TaskFamily = registry.from_table(
        TaskFamily, {**table, "name": name, "origin": origin}, origin
    )
    family.model()
    return family


def _from_folder(spec: str) -> TaskFamily:
    _, (path,) = source_and_path(spec)
    dataset = listed(Path(path).expanduser())
    classes = len(dataset.classes)
    smallest = _smallest(dataset)
    if few := shortage(dataset, LEAST):
        raise DataError(f"{spec}: {few}")
    shots = min(5, max(1, smallest // 3))
    sizes = {"ways": min(classes, 10), "shots": shots, "val": min(200, smallest - shots)}
    return of({"dataset": spec, **sizes}, Path(path).resolve().name, spec)


@dataclass(frozen=True)
class Episodes:
    """A family with its images on the device: what tasks are drawn from.

    Attributes:
        family: its settings.
        dataset: where the images come from.
        images: all of them.
        pools: what tasks are drawn from, by the pool's name.
        held_out: what the validation images of a pool's tasks are drawn from, where that is not the
            pool itself.
    """

    family: TaskFamily
    dataset: Dataset
    images: Images
    pools: dict[str, Pool]
    held_out: dict[str, Pool] = field(default_factory=dict)

    def sample(self, keys: list[Stream], pool: str = "train", val: int | None = None) -> Tasks:
        """One task per key.

        Args:
            keys: a task depends on its own key alone.
            pool: "train" (meta-training), "validation" or "test".
            val: validation images per class; the family's own number where None.
        """
        family = self.family
        val = family.val if val is None else min(val, family.val)
        shape = EpisodeShape(family.ways, family.shots, val, family.label_noise)
        return draw(self.images, self.pools[pool], shape, keys, self.held_out.get(pool))

    @property
    def ways(self) -> int:
        """Classes of a task."""
        return self.family.ways

    @property
    def steps(self) -> int:
        """Of a training."""
        return self.family.inner.steps

    def most(self, tasks: int) -> int:
        """How many tasks are drawn where so many are asked for: all of them."""
        return tasks

    def rates(self, given: Sequence[float]) -> Sequence[float]:
        """The rates among which cross-entropy's is chosen: those of the run."""
        return given

    @cached_property
    def model(self) -> Classifier:
        """The family's classifier."""
        return self.family.model()

    @property
    def metric(self) -> Metric:
        """What losses are scored by, on a task's validation images."""
        return accuracies

    @property
    def chance(self) -> float:
        """The score of guesses."""
        return 1 / self.ways

    def evaluate(
        self,
        engine: Engine,
        populations: Sequence[Losses],
        pool: str,
        key: Stream,
        tasks: range,
        *,
        val: int | None = None,
        rates: Sequence[Rate | None] = (),
        steps: tuple[int, ...] = (),
        metric: Metric | None = None,
    ) -> list[Float[Tensor, "M P T ..."]]:
        """What a metric says of populations of losses on the same tasks, after M numbers of steps.

        Args:
            engine: trains the classifiers.
            populations: of P losses each.
            pool: where the tasks are drawn from: "train", "validation" or "test".
            key: of the tasks, of the initial weights and of the batches.
            tasks: the numbers of the tasks that the key draws.
            val: validation images per class; the family's own number where None.
            rates: of each population a learning rate for all, or one per loss; the family's own
                where None, and by default.
            steps: ascending; the family's own number where there are none.
            metric: what is measured of the trained classifiers; the family's score where None.
        """
        curves = [
            self.observe(
                engine,
                populations,
                pool,
                key,
                tasks,
                metric or self.metric,
                rates=rates,
                steps=lengths,
                val=val,
            )
            for lengths in training_lengths(self.family.inner, steps or (self.steps,))
        ]
        return [torch.cat(of_population) for of_population in zip(*curves, strict=True)]

    def observe(
        self,
        engine: Engine,
        populations: Sequence[Losses],
        pool: str,
        key: Stream,
        tasks: range,
        metric: Metric,
        *,
        rates: Sequence[Rate | None] = (),
        steps: tuple[int, ...],
        val: int | None = None,
    ) -> list[Float[Tensor, "M P T ..."]]:
        """What a metric says along one training, which is as long as the last number of steps.

        Arguments: as for `evaluate`.
        """
        drawn = self.sample([key.at("task", t) for t in tasks], pool, val)
        starts = [key.at("init", t) for t in tasks]
        inner = replace(self.family.inner, steps=steps[-1])
        each_rate = rates or [None] * len(populations)
        return engine.observe(populations, self, drawn, starts, metric, inner, each_rate, steps)

    def validation_rows(self, keys: list[Stream], pool: str) -> Int64[Tensor, "T V"] | None:
        """The rows of the images that the tasks of these keys are validated on."""
        return self.sample(keys, pool).val.rows

    def step_choices(self) -> tuple[int, ...]:
        """The numbers of steps among which the strongest cross-entropy's is chosen."""
        return step_grid(self.family.inner)

    def enlarged(self, steps: int, scale: int) -> Self:
        """The family with more steps and wider layers, by these factors.

        Raises:
            SettingsError: more than can be.
        """
        family = self.family
        table = {k: v for k, v in registry.table(family).items() if k not in ("name", "origin")}
        inner = {**table["inner"], "steps": family.inner.steps * steps}
        layers = registry.table(self.model)
        widths = self.model.widths
        layers[widths] = [width * scale for width in layers[widths]]
        table |= {"inner": inner, "classifier": {"kind": registry.kind(self.model), **layers}}
        return replace(self, family=of(table, family.name, family.origin))

    def with_cache(self, folder: Path, conditions: Callable[[], Mapping[str, str]]) -> Self:
        """The same: the trainings of episodes are short, and none is kept."""
        return self

    def provenance(self) -> dict[str, Any]:
        """Where its images come from, and what each of them is used for."""
        return {
            **describe_images(self.family.dataset, self.dataset.origin, self.pools),
            "use": {
                "search": "train",
                "choice": "validation",
                "test, once, after the choice": "test",
            },
        }

    def estimate(
        self, engine: Engine, losses: Losses, budget: SearchBudget, key: Stream
    ) -> FamilyCost:
        """What a search with this family costs, by the time of a few trainings.

        Args:
            engine: trains them.
            losses: examples of candidates.
            budget: the size of the search.
            key: of the tasks that are timed.
        """
        # On two cores both must be busy, or the estimate would be twice too long.
        each_worker = min(TIMED_TRAININGS // engine.workers, budget.tasks)
        n_tasks = max(1, each_worker) * engine.workers
        keys = [key.at(t) for t in range(n_tasks)]
        tasks = self.sample(keys, val=budget.validation)
        engine.score(losses[:1], self, tasks, keys)  # the first call compiles or loads its code
        began = time.perf_counter()
        engine.score(losses, self, tasks, keys)
        seconds_each = (time.perf_counter() - began) / (len(losses) * n_tasks)
        trainings = budget.candidates * budget.tasks
        winner = (budget.finalists + 2) * budget.winner_tasks
        tuning = STEP_GRID_COST * len(budget.rates) * budget.baseline_tasks
        return FamilyCost(trainings, seconds_each * (trainings + winner + tuning))


def open_episodes(
    family: TaskFamily, device: torch.device | str = "cpu", place: str = ""
) -> Episodes:
    """Load a family's images onto a device, and check that every class of every pool has enough of
    them.

    `place` is where they lie, if not where the family says.

    Raises:
        DataError: names what was found and values that fit.
    """
    dataset = load(place or family.dataset, family.image_options)
    _check(family, dataset)
    cut = {name: pool.rows for name, pool in pools(dataset).items()}
    return Episodes(family, dataset, normalised(dataset, torch.cat(cut["train"]), device), cut)


def normalised(dataset: Dataset, rows: Int64[Tensor, " N"], device: torch.device | str) -> Images:
    """All images on a device, with one mean and one standard deviation: those of the given rows'
    pixels.

    Where these are the images that may be learned from, all others stay unseen.
    """
    counts = torch.bincount(dataset.pixels[rows].flatten(), minlength=256).double()
    level = torch.arange(256, dtype=torch.float64)
    mean = (counts * level).sum() / counts.sum()
    std = ((counts * (level - mean) ** 2).sum() / counts.sum()).sqrt().clamp(min=1)
    return Images(dataset.pixels.to(device), float(mean), float(std))


def _check(family: TaskFamily, dataset: Dataset) -> None:
    classes = len(dataset.classes)
    smallest = _smallest(dataset)
    need = family.shots + family.val
    if family.ways <= classes and need <= smallest:
        return
    found = [f"{family.ways}-way needs {family.ways} classes, found {classes} ({_counts(dataset)})"]
    few = shortage(dataset, need, f" for shots + val = {need} in every pool")
    reasons = ([] if family.ways <= classes else found) + ([few] if few else [])
    message = f"{family.origin}: {'; '.join(reasons)}"
    if classes >= 2 and smallest >= LEAST:
        shots = min(family.shots, max(1, smallest // 3))
        val = min(family.val, smallest - shots)
        fits = f"ways = {min(family.ways, classes)}, shots = {shots}, val = {val}"
        raise DataError(f"{message}. This fits: {fits}")
    raise DataError(
        f"{message}. No task can be drawn: 2 classes with {LEAST} images in every pool are the "
        "least"
    )


def _smallest(dataset: Dataset | Files) -> int:
    """The number of images that the scarcest class has in its smallest pool."""
    return min(len(rows) for pool in pools(dataset).values() for rows in pool.rows)


def _counts(dataset: Dataset | Files, most: int = 5) -> str:
    counts = dataset.labels.bincount(minlength=len(dataset.classes)).tolist()
    pairs = sorted(zip(counts, dataset.classes, strict=True))[:most]
    listed = ", ".join(f"{name} {n}" for n, name in pairs)
    return f"{listed}{', …' if len(counts) > most else ''} images"
