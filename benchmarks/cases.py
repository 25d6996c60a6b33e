"""What the benchmarks train.

One case is a grid of candidates × tasks, the same for us and for every rival.
"""

import random
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from metaloss.core import registry
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.data.episodes import Images, Tasks
from metaloss.data.features import Features
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.losses.base import CrossEntropies, Losses
from metaloss.losses.formulas import Formulas
from metaloss.losses.language.expression import Expression, P, Y, call, constant
from metaloss.losses.language.formula import Formula
from metaloss.losses.language.primitives import MORGAN_BINARY, MORGAN_UNARY
from metaloss.search.novelty import NoveltyFilter, SeenLosses
from metaloss.tasks import episodic, episodic_family
from metaloss.tasks.episodic import Episodes

HIDDEN = (128, 64)
FILTERS = (8, 16)
KERNEL = 3
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": list(HIDDEN)},
    "cnn": {"kind": "cnn", "filters": list(FILTERS), "kernel": KERNEL},
    "linear": {"kind": "linear"},
}
HEAD_FEATURES = 1280  # of an image, in the place of its pixels, for the linear classifier
# Genomes whose candidates lie about the start of their search, and the first steps of that.
STEPS = {"targets": 0.15, "taylor": 1.2}
SEARCHED = ("tree", "graph")  # genomes whose random candidates are losses to train with
# Cases that are measured apart, by what the others do not have.
LONG: dict[str, Any] = {"shots": 20, "steps": 200}
APART: dict[str, dict[str, Any]] = {
    "long": LONG,
    "head": {"classifier": "linear", "lr": 0.01, **LONG},
}
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One training for every candidate on every task.

    Plain values alone, so that a worker process can be told.
    """

    classifier: str = "mlp"
    loss: str = "mln"
    candidates: int = 1
    tasks: int = 1
    ways: int = 10
    shots: int = 5
    val: int = 200
    steps: int = 20
    lr: float = 0.1
    # Further settings of the family's `inner`.
    optimiser: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.candidates * self.tasks

    @property
    def kind(self) -> str:
        """Which of the cases apart it is, "" for none."""
        return "head" if self.classifier == "linear" else "long" if self.steps >= 200 else ""

    def share(self, most: int) -> "Case":
        """At most so many of the trainings: candidates first, which share what a task needs."""
        candidates = min(self.candidates, most)
        return replace(
            self, candidates=candidates, tasks=min(self.tasks, max(1, most // candidates))
        )

    def shapes(self, features: int) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of every layer, by the name its weights are drawn under."""
        if self.classifier == "linear":
            return {"0": (features, self.ways)}
        if self.classifier == "mlp":
            return {f"{i}": pair for i, pair in enumerate(pairwise((features, *HIDDEN, self.ways)))}
        inputs = (1, *FILTERS[:-1])  # grey images
        convolutions = {
            f"{i}": (a * KERNEL**2, b) for i, (a, b) in enumerate(zip(inputs, FILTERS, strict=True))
        }
        side = features**0.5
        for _ in FILTERS:
            side = -(-side // 2)
        return {**convolutions, "_head": (int(side) ** 2 * FILTERS[-1], self.ways)}

    def operations(self, features: int = 784) -> float:
        """Multiplications and additions of one training of the MLP, its first layer in the cheaper
        form: in the span of the B images, or with its features.

        A layer's step is three products, the first layer's one in the span and two with features:
        its inputs need no gradient.
        """
        train, val, (first, *_) = self.ways * self.shots, self.ways * self.val, HIDDEN
        later = sum(a * b for a, b in pairwise((*HIDDEN, self.ways)))
        in_span = self.steps * 2 * first * train * train + 2 * val * train * first
        with_features = self.steps * 4 * first * train * features + 2 * val * features * first
        return min(in_span, with_features) + self.steps * 6 * train * later + 2 * val * later


@dataclass(frozen=True)
class Problem:
    """A case with its images, tasks and losses at hand."""

    case: Case
    episodes: Episodes
    tasks: Tasks
    keys: list[Stream]  # of every task's initial weights
    losses: Losses
    # The same losses as plain matrices, outputs × inputs; cross-entropy's smoothing.
    networks: list[Weights]

    def start(self, task: int) -> Weights:
        """The task's initial weights, inputs × outputs, as our engine draws them.

        `torch.nn`'s own distribution.
        """
        classes = self.case.ways
        if self.case.classifier == "linear":
            # It starts at 0.
            return {"w0": torch.zeros(HEAD_FEATURES, classes), "b0": torch.zeros(1, classes)}
        image = torch.Size(self.episodes.images.shape)
        model: Any = self.episodes.model
        drawn = model.shapes(
            image.numel() if self.case.classifier == "mlp" else tuple(image), classes
        )
        start = {
            name: self.keys[task].at(name).uniform(*shape, low=-bound, high=bound)
            for name, (shape, bound) in drawn.items()
        }
        for name, (fan_in, fan_out) in self.case.shapes(image.numel()).items():
            for kind, rows in (("w", fan_in), ("b", 1)):
                x = start[kind + name]
                x = x[None] if x.ndim == 1 else x.flatten(1)
                start[kind + name] = x if x.shape == (rows, fan_out) else x.mT
        return start


@lru_cache(maxsize=4)
def _images(dataset: str) -> Episodes:
    return episodic.open_episodes(
        episodic_family.of(
            {"dataset": dataset, "ways": 2, "shots": 1, "val": 1}, "images", "images"
        )
    )


@lru_cache(maxsize=1)
def _features(dataset: str) -> Features:
    """Numbers in the place of pixels, as a network gives them: random sums of these, after ReLU."""
    images = _images(dataset).images
    assert isinstance(images, Images)
    pixels = images.pixels.flatten(1)
    weights = Stream(0).at("features").normal(pixels.shape[1], HEAD_FEATURES)
    values = torch.cat([(x.float() @ weights).relu_() for x in pixels.split(4096)])
    return Features(values.sub_(values.mean(0)).div_(values.std(0)))


def family_of(case: Case) -> episodic_family.TaskFamily:
    """The task family that a case stands for: Fashion-MNIST, as in tasks/fashionmnist.toml."""
    table = {
        "dataset": "fashionmnist",
        "ways": case.ways,
        "shots": case.shots,
        "val": case.val,
        "classifier": CLASSIFIERS[case.classifier],
        "inner": {"steps": case.steps, "lr": case.lr, **case.optimiser},
    }
    return episodic_family.of(table, "benchmark", "benchmark")


def problem(case: Case) -> Problem:
    """Draw the case's tasks and losses; not part of what is timed, for us nor for a rival."""
    images = _images("fashionmnist")
    inputs = _features("fashionmnist") if case.classifier == "linear" else images.images
    episodes = Episodes(family_of(case), images.dataset, inputs, images.pools)
    key = Stream(0)
    keys = [key.at("task", t) for t in range(case.tasks)]
    networks: list[Weights] = []
    if case.loss == "formulas":
        losses: Losses = Formulas.of([formula(random.Random(i)) for i in range(case.candidates)])
    elif case.loss in SEARCHED:
        losses = first_generation(case.loss, case.candidates, key.at("losses"))
    elif case.loss in STEPS:
        losses = about_the_start(case.loss, case.candidates, key.at("losses"))
    elif case.loss == "ce":
        losses = CrossEntropies.of(case.candidates)
        networks = [{"smoothing": torch.zeros(())} for _ in range(case.candidates)]
    else:
        genome = MetaLossNetwork(start="random", home_classes=case.ways)
        population = genome.sample(case.candidates, key.at("losses"))
        losses = genome.losses(population)
        networks = matrices(genome, population)
    return Problem(case, episodes, episodes.sample(keys, "train"), keys, losses, networks)


def about_the_start(genome: str, n: int, key: Stream) -> Losses:
    """Losses about those that a search starts from, as far away as its first steps take them."""
    space: Any = registry.build("genomes", {"kind": genome})
    start = space.sample(n, key).vectors()
    return space.losses(Vectors(start + STEPS[genome] * key.at("step").normal(*start.shape)))


def first_generation(genome: str, n: int, key: Stream) -> Losses:
    """What a search for formulas would train first: random candidates that pass its filters, no two
    alike.

    Raises:
        SystemExit: there are not as many in all tries.
    """
    space: Any = registry.build("genomes", {"kind": genome})
    novelty_filter = NoveltyFilter(space, SeenLosses(space.filters))
    novelty_filter.start_generation()
    population = novelty_filter.sample(n, key)
    if space.valid(population).any():
        raise SystemExit(
            f"{n} random candidates of genome '{genome}' that pass its filters were not found"
        )
    return novelty_filter.losses(population)


def formula(draw: random.Random) -> Formula:
    """A random loss of 3 to 30 of Morgan and Hougen's operations.

    It reads both the target and the prediction.
    """
    while True:
        tree = _grown(draw, draw.randint(3, 30))
        if {"y", "p"} <= tree.terminals:
            return Formula(tree)


def _grown(draw: random.Random, size: int) -> Expression:
    if size == 1:
        return draw.choice((Y, P, constant(1), constant(-1)))
    if size == 2 or draw.random() < 0.5:
        return call(draw.choice(MORGAN_UNARY), _grown(draw, size - 1))
    left = draw.randint(1, size - 2)
    return call(draw.choice(MORGAN_BINARY), _grown(draw, left), _grown(draw, size - 1 - left))


def matrices(genome: MetaLossNetwork, population: Vectors) -> list[Weights]:
    """Every candidate's weight matrices, by name."""
    sizes = [rows * columns for rows, columns in genome.shapes.values()]
    return [
        {
            name: x.reshape(shape)
            for (name, shape), x in zip(genome.shapes.items(), vector.split(sizes), strict=True)
        }
        for vector in population.vectors()
    ]
