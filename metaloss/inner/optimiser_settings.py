"""The settings of an optimiser that the inner loop and full-size training share.

Each of the two declares its own fields: order and defaults differ, and files keep both. What a
field may hold, and the check that both make, stand here.
"""

from typing import Annotated, Literal

from pydantic import Field

# Adam takes L2 decay into the gradient, AdamW decays apart from it; as torch.optim's.
OptimiserName = Literal["sgd", "adam", "adamw"]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Momentum, Momentum]
WeightDecay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Warmup = Annotated[int, Field(ge=0)]  # steps


def check_nesterov(nesterov: bool, momentum: float) -> None:
    """Raise a ValueError where Nesterov's step has no momentum to look ahead by."""
    if nesterov and not momentum:
        raise ValueError("nesterov needs momentum above 0")
