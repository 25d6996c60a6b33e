"""`compare`: losses side by side on the meta-test tasks of any families, each one tuned first."""

from metaloss.experiments.comparison.run import Report, compare, start
from metaloss.experiments.comparison.settings import Comparison

__all__ = ["Comparison", "Report", "compare", "start"]
