"""`reproduce`: a paper's table beside ours, what ours departs in, and what was not run."""

from metaloss.experiments.reproduction.published import about, names
from metaloss.experiments.reproduction.run import lines, reproduce, start

__all__ = ["about", "lines", "names", "reproduce", "start"]
