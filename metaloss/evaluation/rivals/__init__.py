"""Rivals of losses that are no losses, on the same tasks: fitted methods, and changes of logits."""

from metaloss.evaluation.rivals.fitting import (
    AFTER,
    FITTED,
    FittedChoice,
    RivalMeasures,
    choose_methods,
    fit_methods,
    measure_methods,
)
from metaloss.evaluation.rivals.logits import (
    TAU,
    ChangeChoice,
    adjust_logits,
    choose_changes,
    measure_changes,
)
from metaloss.evaluation.rivals.methods import available, install

__all__ = [
    "AFTER",
    "FITTED",
    "TAU",
    "ChangeChoice",
    "FittedChoice",
    "RivalMeasures",
    "adjust_logits",
    "available",
    "choose_changes",
    "choose_methods",
    "fit_methods",
    "install",
    "measure_changes",
    "measure_methods",
]
