"""What commands need of the tables that a run's folder holds; a file without it is damaged."""

from typing import NotRequired

from typing_extensions import TypedDict


class Gain(TypedDict):
    """What is needed of a paired difference."""

    mean: float
    low: float
    high: float


class Rival(TypedDict):
    """What is needed of a rival in the test."""

    lr: float
    steps: int
    accuracy: float
    gain: Gain


class Tested(TypedDict):
    """What is needed of the test on a family."""

    accuracy: float
    tasks: int
    ce: Rival
    ce_steps: Rival


class Choice(TypedDict):
    """What is needed of the winner's election."""

    generation: int
    origin: str
    tasks: int


class Size(TypedDict):
    """A formula of the front."""

    size: int
    accuracy: float


class Summary(TypedDict):
    """What is needed of a run's `summary.json`."""

    choice: Choice
    test: dict[str, Tested]
    front: NotRequired[list[Size]]
    formula: NotRequired[str]
    refused: NotRequired[dict[str, int]]
    screened_trainings: NotRequired[int]
