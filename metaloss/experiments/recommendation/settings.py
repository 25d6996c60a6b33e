"""The settings of a recommendation."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from metaloss.evaluation.variants import Tune
from metaloss.search.settings import RATES

Many = Annotated[int, Field(ge=2, le=1_000_000)]


class Recommendation(BaseModel):
    """What decides a recommendation.

    Attributes:
        data: folder:PATH, or a task family or data set by name.
        images: "all" but those of an official test split; or "test": the meta-test pool alone,
            which no search learns from, for losses that were evolved on these images.
        folds: how many; by default five, or as many as leave two images of every class in each.
        certainty: of the intervals; another loss than cross-entropy is recommended where its own
            lies above 0.
        tune: "rate" at the family's number of steps, or at cross-entropy's best number where no
            family says it; "steps": each loss at its best number of
            steps, too; "rate+own" and "steps+own": each published loss that is named without
            parameters also with the best of its own.
        rivals: set what is no loss beside the losses, too: changes of the logits after training
            and, where scikit-learn is installed, other methods.
        rates: learning rates among which each loss's is chosen.
        tuning_tasks: on which a loss is chosen, in each fold and at last on all images.
        test_tasks: of each fold.
        seed: of every random draw.
        device: where classifiers train.
        memory: bytes that trainings may take.
        allow_seen: go on although a loss has learned from these images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    images: Literal["all", "test"] = "all"
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    certainty: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    tune: Tune = "rate"
    rivals: bool = True
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = RATES
    tuning_tasks: Many = 16
    test_tasks: Many = 24
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int, Field(ge=1 << 26)] = 2 << 30
    allow_seen: bool = False
