"""`study`: does a cheap setting order losses as an expensive one does?

A setting is a family of episodes or a full-size training.
"""

from metaloss.experiments.rank_study.run import FinishedStudy, go_on, start, study

__all__ = ["FinishedStudy", "go_on", "start", "study"]
