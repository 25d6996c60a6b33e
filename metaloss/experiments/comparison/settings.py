"""The settings of a comparison."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from metaloss.evaluation.variants import Tune
from metaloss.experiments.comparison.losses import CE
from metaloss.search.settings import RATES

Many = Annotated[int, Field(ge=2, le=1_000_000)]


class Comparison(BaseModel):
    """What decides a comparison's result.

    Attributes:
        tasks: families by name, path or folder:PATH.
        against: the loss that all are set beside.
        tune: "rate" at the family's number of steps; "steps": each loss at its best number of
            steps, too; "rate+own" and "steps+own": each published loss that is named without
            parameters also with the best of its own.
        rates: learning rates among which each loss's is chosen.
        tuning_tasks: meta-validation tasks for that choice.
        test_tasks: meta-test tasks.
        curve_tasks: those of them on which learning curves are drawn.
        seed: of every random draw.
        device: where classifiers train.
        memory: bytes that trainings may take.
        allow_seen: compare although a run has learned from test images.
        rivals: set what is no loss beside the losses, too, where scikit-learn is installed: other
            methods, and changes of the logits after training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: Annotated[tuple[str, ...], Field(min_length=1)] = ("fashionmnist",)
    against: str = CE
    tune: Tune = "rate"
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = RATES
    tuning_tasks: Many = 64
    test_tasks: Many = 300
    curve_tasks: Many = 32
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int, Field(ge=1 << 26)] = 2 << 30
    allow_seen: bool = False
    rivals: bool = True
