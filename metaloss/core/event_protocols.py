"""What the events of a job hand out: these attributes a reporter may count on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from metaloss.core.metric_scale import MetricScale


class ReportedEngine(Protocol):
    """What trains."""

    @property
    def description(self) -> str:
        """Where it trains, in a few words."""


class ActorCounts(Protocol):
    """How the actors of an engine fare."""

    @property
    def alive(self) -> int:
        """Actors that take work."""

    @property
    def in_flight(self) -> int:
        """Chunks that are with them."""

    @property
    def resent(self) -> int:
        """Chunks that were sent again, since the engine was made."""


class ReportedCourse(Protocol):
    """How many tasks a search's generations have."""

    def generations_left(self, number: int, generations: int) -> float:
        """How many generations of this one's size those that come after it are worth."""


class SearchSettings(Protocol):
    """The settings of a search, of which these say what it is."""

    @property
    def generations(self) -> int:
        """How many there will be."""

    @property
    def genome(self) -> Mapping[str, Any]:
        """The search space, as a table with its kind."""

    @property
    def strategy(self) -> Mapping[str, Any]:
        """The outer algorithm, likewise."""

    @property
    def seed(self) -> int:
        """Of every random draw."""

    @property
    def guard(self) -> Mapping[str, float] | None:
        """How far candidates may lie behind cross-entropy by other metrics."""

    def task_course(self) -> ReportedCourse:
        """How many tasks each generation has."""


class SearchRun(Protocol):
    """A run's folder."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""

    @property
    def name(self) -> str:
        """The folder's own name."""

    @property
    def settings(self) -> SearchSettings:
        """What it began with."""


class ImageSource(Protocol):
    """A data set."""

    @property
    def origin(self) -> str:
        """Where its images come from, in words."""


class FamilySettings(Protocol):
    """The settings of a task family; those of its kind are beside these."""

    @property
    def name(self) -> str:
        """Results go by it."""

    @property
    def origin(self) -> str:
        """Where it was read."""


class OpenFamily(Protocol):
    """A task family with its images."""

    @property
    def family(self) -> FamilySettings:
        """Its settings."""

    @property
    def data_origin(self) -> str:
        """Where its images come from, in words."""

    @property
    def scale(self) -> MetricScale:
        """How the metric's values are shown that losses are scored by."""


class ReportedBaseline(Protocol):
    """Cross-entropy at its best learning rate on a family."""

    @property
    def relative(self) -> bool:
        """Whether that is another rate at each kind of its tasks."""

    @property
    def lr(self) -> float:
        """That rate."""

    @property
    def score(self) -> float:
        """The mean over the meta-validation tasks, as `MetricScale.value` takes it."""


class TaskCounts(Protocol):
    """The settings of a comparison or a recommendation, of which these say how much it looks at."""

    @property
    def tune(self) -> str:
        """What is chosen for each loss: "rate", "steps", "rate+own" or "steps+own"."""

    @property
    def tuning_tasks(self) -> int:
        """Tasks that settings are chosen on."""

    @property
    def test_tasks(self) -> int:
        """Tasks that losses are judged on."""


class ReportedFolds(Protocol):
    """A user's images, cut into folds."""

    @property
    def family(self) -> Any:
        """The settings of their tasks."""

    @property
    def dataset(self) -> ImageSource:
        """Where they come from."""

    @property
    def rows(self) -> Sequence[Any]:
        """For each class the numbers of its images."""

    @property
    def folds(self) -> int:
        """How many."""

    @property
    def copies_in_words(self) -> str:
        """Some of the images left out because others are the same, and which those are."""

    @property
    def copies(self) -> int:
        """Images left out because others are the same."""

    @property
    def val(self) -> int:
        """Held-out images per class, on average, of a task."""

    @property
    def group_count(self) -> int:
        """Of how many groups the images are; 0 where they stand for themselves."""

    @property
    def usual_metric(self) -> bool:
        """Whether the metric was chosen because classes are uneven."""

    @property
    def usual_steps(self) -> bool:
        """Whether all losses train for cross-entropy's best number of steps."""


class Outcome(Protocol):
    """A finished comparison, recommendation, study or full-size training."""

    @property
    def summary(self) -> dict[str, Any]:
        """All that it came to, as plain values."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""


class FullSizeSession(Protocol):
    """Full-size trainings that are about to begin, or to go on."""

    @property
    def folder(self) -> Path:
        """Where everything lies."""

    @property
    def settings(self) -> Any:
        """The settings of every training, `metaloss.training.settings.Training`."""

    @property
    def losses(self) -> Sequence[Any]:
        """Those that are trained with."""


class StudySettings(Protocol):
    """The settings of a study."""

    @property
    def losses(self) -> Sequence[str]:
        """Those that are ordered."""

    @property
    def seed(self) -> int:
        """Of every random draw."""


class StudyCondition(Protocol):
    """A setting under which a study scores all losses."""

    @property
    def name(self) -> str:
        """Results go by it."""

    @property
    def rates(self) -> Sequence[float]:
        """Learning rates among which every loss's is chosen; one where none is."""

    @property
    def scale(self) -> MetricScale:
        """How scores are shown."""

    @property
    def unit(self) -> str:
        """What a score is the mean over: "tasks" or "seeds"."""


class StudyScore(Protocol):
    """What a loss reached under a setting."""

    @property
    def score(self) -> float:
        """The mean, as `MetricScale.value` takes it; a failed training counts as 0."""

    @property
    def accuracy(self) -> float:
        """The mean accuracy, likewise."""

    @property
    def n(self) -> int:
        """Over how many tasks or seeds."""

    @property
    def failed(self) -> int:
        """How many of them failed."""
