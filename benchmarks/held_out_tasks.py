"""The kinds of tasks on which `held_out_kinds.py` sets a learned loss beside cross-entropy.

A kind is a data set, a network, a number of training images and a share of wrong labels. None of
the images is learned from or chosen on: they are of the test pool, and rates are tuned on images of
the meta-validation pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features import RATES as USUAL_RATES

from metaloss.search.settings import RATES
from metaloss.tasks.episodic_family import TaskFamily, of, read

STEPS = (10, 20, 50, 100, 200, 400)
# A layer that starts at 0 can begin with steps as short as one likes.
RATES_ON_FEATURES = (0.00001, 0.00003, *USUAL_RATES)
LATE = (200, 400)  # where rivals stand beside the loss
OF_CNN = (10, 20, 50, 100, 200)
OF_NOISE = (20, 100, 200)
SHOTS = (1, 5, 20, 50)
PARTS = ("episodes", "features", "digits", "cnn", "rates", "noise")
# Training images of a task from which on trainings are so large that few tasks tune them.
LARGE = 200
FASHION = "Fashion-MNIST"


@dataclass(frozen=True)
class Kind:
    """Tasks that differ in the number of steps alone.

    Attributes:
        part: of the table.
        images: the data set and what is done to it, in words.
        network: the classifier, in words.
        family: the settings of its tasks.
        steps: the numbers of steps that are reported, ascending.
        rivals_at: those at which rivals stand beside the loss.
        rates: to choose from.
        tasks: meta-test tasks.
        tuning: meta-validation tasks.
    """

    part: str
    images: str
    network: str
    family: TaskFamily
    steps: tuple[int, ...]
    rivals_at: tuple[int, ...]
    rates: tuple[float, ...]
    tasks: int
    tuning: int

    @property
    def shots(self) -> int:
        """Training images of a class."""
        assert isinstance(self.family.shots, int)
        return self.family.shots

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.images}, {self.network}, {self.shots}-shot"

    def step_cost(self) -> float:
        """Microseconds of one core for one step of one training, about: for the time left alone."""
        images = self.shots * self.family.ways
        if self.network == "CNN":
            return 80.0 * images
        if self.network == "linear head":
            return 14 + 0.2 * images + 0.0004 * images**2
        return 14 + 0.4 * images + 0.0014 * images**2


@dataclass(frozen=True)
class Budget:
    """How much is measured.

    Attributes:
        tasks: meta-test tasks of a kind; a quarter for the CNN, half where labels are wrong.
        tuning: meta-validation tasks of a kind; fewer where trainings are large.
        features: the file of features of a pretrained network.
        quick: a few kinds and numbers of steps alone.
        rivals: whether label smoothing and published losses are measured, too.
        fewer_large: whether kinds with large trainings have fewer tasks: half of them where a task
            has 200 images and with the CNN, a quarter where it has more.
    """

    tasks: int
    tuning: int
    features: Path
    quick: bool = False
    rivals: bool = True
    fewer_large: bool = False

    def kind(
        self,
        part: str,
        images: str,
        network: str,
        family: TaskFamily,
        steps: Sequence[int],
        rivals_at: Sequence[int] = (),
    ) -> Kind:
        """A kind within this budget."""
        convolutions = network == "CNN"
        assert isinstance(family.shots, int)
        train_images = family.shots * family.ways
        large = convolutions or (network == "MLP" and train_images >= LARGE)
        part_of_tasks = 4 if convolutions else 2 if part == "noise" else 1
        if self.fewer_large and large:
            part_of_tasks *= 4 if train_images > LARGE else 2
        tuning = max(4, self.tuning // 2) if large else self.tuning
        rates = RATES_ON_FEATURES if network == "linear head" else RATES
        quick = (20,) if convolutions else (20, 200)
        steps = tuple(n for n in steps if not self.quick or n in quick)
        return Kind(
            part,
            images,
            network,
            replace(family, name=f"{family.name}-{family.shots}"),
            steps,
            tuple(n for n in rivals_at if n in steps and self.rivals),
            rates,
            max(2, self.tasks // part_of_tasks),
            tuning,
        )

    def shots(self, *shots: int) -> tuple[int, ...]:
        """The numbers of training images that are measured."""
        return (5,) if self.quick and 5 in shots else shots[:1] if self.quick else shots

    def kinds(self, part: str) -> list[Kind]:
        """The kinds of a part; those of `rates` are kinds of `episodes`."""
        if part == "episodes":
            return self._episodes()
        if part == "features":
            return self._features()
        if part == "rates":
            return [x for x in self._episodes() if x.shots in (5, 20)]
        if part == "digits":
            digits = replace(read("digits"), val=15)
            return [
                self.kind(part, "digits", "MLP", replace(digits, shots=n), STEPS)
                for n in self.shots(1, 5, 20)
            ]
        if part == "cnn":
            cnn = read("fashionmnist-cnn")
            return [
                self.kind(part, FASHION, "CNN", replace(cnn, shots=n), OF_CNN)
                for n in self.shots(5, 20)
            ]
        return self._noise()

    def _episodes(self) -> list[Kind]:
        mlp = read("fashionmnist")
        return [
            self.kind("episodes", FASHION, "MLP", replace(mlp, shots=n), STEPS, LATE)
            for n in self.shots(*SHOTS)
        ]

    def _features(self) -> list[Kind]:
        if not self.features.is_file():
            return []
        table = {
            "dataset": f"file:{self.features}",
            "ways": 10,
            "val": 200,
            "classifier": {"kind": "linear"},
        }
        return [
            self.kind(
                "features",
                FASHION,
                "linear head",
                of({**table, "shots": n}, "features", str(self.features)),
                STEPS,
                LATE,
            )
            for n in self.shots(*SHOTS)
        ]

    def _noise(self) -> list[Kind]:
        plain = read("fashionmnist")
        made = []
        for share in (0.2, 0.4):
            family = replace(plain, noise={"kind": "symmetric", "share": share})
            images = f"{FASHION}, {100 * share:.0f} % wrong labels"
            made += [
                self.kind("noise", images, "MLP", replace(family, shots=n), OF_NOISE, OF_NOISE)
                for n in self.shots(10, 50)
            ]
        return made[:1] if self.quick else made
