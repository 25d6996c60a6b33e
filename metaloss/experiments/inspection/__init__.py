"""A look at a data set before anything is trained, with a report: `metaloss data show`."""

from metaloss.experiments.inspection.run import DataReport, inspect

__all__ = ["DataReport", "inspect"]
