"""What commands need of the tables that a run's folder holds; a file without it is damaged."""

from typing import NotRequired

from typing_extensions import TypedDict


class PairedGain(TypedDict):
    """What is needed of a paired difference."""

    mean: float
    low: float
    high: float


class TestedBaseline(TypedDict):
    """What is needed of a rival in the test; its value stands under the metric's name."""

    gain: PairedGain


class TunedBaseline(TestedBaseline):
    """What is needed of one whose setting was chosen."""

    lr: float
    steps: int


class FamilyTest(TypedDict):
    """What is needed of the test on a family."""

    tasks: int
    ce: TunedBaseline
    ce_steps: TunedBaseline
    ce_own: NotRequired[TestedBaseline]


class WinnerChoice(TypedDict):
    """What is needed of the winner's election."""

    generation: int
    origin: str
    tasks: int


class FrontFormula(TypedDict):
    """What is needed of a formula of the front; its value stands under the metric's name."""

    size: int


class GuardedMetric(TypedDict):
    """What is needed of a guard's metric in the test."""

    winner: float
    ce: float
    kept: bool


class GuardTest(TypedDict):
    """What is needed of a guard: what it allows by metric, and its test by family and metric."""

    allowed: dict[str, float]
    test: dict[str, dict[str, GuardedMetric]]


class FitnessNoise(TypedDict):
    """What is needed of the noise of fitness."""

    lead: float
    error: float
    generations: int


class RunSummary(TypedDict):
    """What is needed of a run's `summary.json`."""

    choice: WinnerChoice
    test: dict[str, FamilyTest]
    front: NotRequired[list[FrontFormula]]
    formula: NotRequired[str]
    refused: NotRequired[dict[str, int]]
    screened_trainings: NotRequired[int]
    noise: NotRequired[FitnessNoise]
    guard: NotRequired[GuardTest]
