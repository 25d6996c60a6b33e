"""Rivals of losses that are no losses, on the same tasks: fitted methods, and changes of logits."""

from metaloss.evaluation.rivals.fitting import RivalMeasures, fit_methods
from metaloss.evaluation.rivals.logits import adjust_logits
from metaloss.evaluation.rivals.methods import available, install

__all__ = ["RivalMeasures", "adjust_logits", "available", "fit_methods", "install"]
