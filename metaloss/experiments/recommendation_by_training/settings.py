"""The settings of a recommendation by real trainings."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from metaloss.core import registry
from metaloss.core.config import split_settings
from metaloss.errors import SettingsError
from metaloss.experiments.recommendation_by_training.halving import STAGES, HalvingStage
from metaloss.inner.metrics import MetricTable
from metaloss.training.settings import Training, over, resolve

# Settings of `metaloss train` that a recommendation decides, and why each is not the user's.
DECIDED = {
    "loss": "--losses names what is tried",
    "lr": "rates says among which each loss's is chosen",
    "subset": "all images but a fold's are trained on",
    "validation": "the inner splits take its place",
    "devices": "a network trains on one device here",
    "class_weights": "losses make up for uneven classes, class_weights among them",
    "sampling": "losses make up for uneven classes",
    "prior_correction": "its strengths are tried with cross-entropy",
    "thresholds": "prior corrections are tried, which do better where images are few",
    "tensorboard": "metaloss train writes its files",
    "classifier": "--train names the network",
    "shots": "a training learns from all images outside a fold",
    "tune": "rates and own parameters are tuned",
    "tuning_tasks": "stages says how a choice is made",
    "test_tasks": "seeds says how often a choice is judged",
}
FIELDS = frozenset(Training.__dataclass_fields__)


class TrainingRecommendation(BaseModel):
    """What decides a recommendation by real trainings, beside the settings of the training.

    Attributes:
        data: folder:PATH, or a data source by name.
        train: the network.
        metric: what losses are scored by, a name or a table with the metric's kind and settings;
            None: accuracy, or balanced accuracy where classes are uneven.
        groups: a CSV file with the group of every image, as of one patient: each is whole in one
            fold and one inner part.
        images: "all" but those of an official test split; or "test", the meta-test pool alone,
            which no search learns from.
        folds: how many; by default five, or as many as leave two images of every class in each.
        splits: parts into which the images that may choose are cut; each is held out once.
        seeds: trainings of the chosen loss and of cross-entropy in every fold.
        stages: of a halving.
        own: of each published loss's own parameters so many choices are tried, from end to end.
        rates: learning rates among which each loss's is chosen; where there are none, the usual one
            and thrice that, for cross-entropy also a third and those between; and where the best is
            at the end of them, the next one.
        certainty: of the intervals; another loss than cross-entropy is recommended where its own
            lies above 0.
        seed: of every random draw.
        device: where networks train.
        workers: trainings at once; 0: one on a GPU, else as many as there are cores.
        allow_seen: go on although a loss has learned from these images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    train: str
    metric: MetricTable = None
    groups: str = ""
    images: Literal["all", "test"] = "all"
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    splits: Annotated[int, Field(ge=2, le=100)] = 3
    seeds: Annotated[int, Field(ge=3, le=1000)] = 5
    stages: Annotated[tuple[HalvingStage, ...], Field(min_length=1)] = STAGES
    own: Annotated[int, Field(ge=1, le=100)] = 3
    rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    certainty: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0, lt=2**62)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    allow_seen: bool = False


def read_settings(table: Mapping[str, Any]) -> tuple[TrainingRecommendation, Training]:
    """The settings in a table, and those of the training.

    Raises:
        SettingsError: an unknown setting, or one that the recommendation decides.
    """
    for name in sorted(DECIDED.keys() & table.keys()):
        raise SettingsError(f"recommend: {name} has no place beside --train: {DECIDED[name]}")
    own = TrainingRecommendation.model_fields.keys()
    changes, rest = split_settings(table, FIELDS - own)
    asked: TrainingRecommendation = registry.from_table(TrainingRecommendation, rest, "recommend")
    training = resolve(over(changes, {"data": asked.data, "model": asked.train}))
    if training.schedule == "plateau":
        raise SettingsError(
            "recommend: schedule 'plateau' follows the loss on validation images, and all images "
            "outside a fold are trained on: one_cycle, step or constant"
        )
    return asked, training
