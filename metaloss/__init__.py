"""Learn the loss function that a small data set needs.

>>> import metaloss
>>> "evolve" in dir(metaloss)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metaloss._version import __version__ as __version__

if TYPE_CHECKING:
    from metaloss.catalogue import load as load
    from metaloss.comparison import compare as compare
    from metaloss.console import Console as Console
    from metaloss.criterion import Criterion as Criterion
    from metaloss.elimination import eliminate as eliminate
    from metaloss.recommendation import recommend as recommend
    from metaloss.refinement import refine as refine
    from metaloss.reproduction import reproduce as reproduce
    from metaloss.search import evolve as evolve
    from metaloss.search import resume as resume
    from metaloss.studies import study as study
    from metaloss.training.fitting import fit as fit
    from metaloss.training.fitting import fit_all as fit_all

# Looked up on first use: `import metaloss` and `metaloss --help` stay fast, and need no torch.
_PUBLIC = {
    "evolve": "metaloss.search",
    "resume": "metaloss.search",
    "eliminate": "metaloss.elimination",
    "refine": "metaloss.refinement",
    "compare": "metaloss.comparison",
    "recommend": "metaloss.recommendation",
    "reproduce": "metaloss.reproduction",
    "fit": "metaloss.training.fitting",
    "fit_all": "metaloss.training.fitting",
    "study": "metaloss.studies",
    "load": "metaloss.catalogue",
    "Criterion": "metaloss.criterion",
    "Console": "metaloss.console",
}

__all__ = [
    "Console", "Criterion", "__version__", "compare", "eliminate", "evolve", "fit", "fit_all", "load", "recommend",
    "refine", "reproduce", "resume", "study",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metaloss' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
