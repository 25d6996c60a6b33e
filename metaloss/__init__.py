"""Learn the loss function that a small data set needs.

>>> import metaloss
>>> "evolve" in dir(metaloss)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from metaloss._version import __version__ as __version__

if TYPE_CHECKING:
    from metaloss import errors as errors
    from metaloss.console import Console as Console
    from metaloss.core.population import Population as Population
    from metaloss.core.population import Vectors as Vectors
    from metaloss.core.registry import build as build
    from metaloss.core.reporting import Reporter as Reporter
    from metaloss.core.streams import Stream as Stream
    from metaloss.criterion.base import Criterion as Criterion
    from metaloss.criterion.export import export as export
    from metaloss.criterion.loss_io import load as load
    from metaloss.data.datasets import Dataset as Dataset
    from metaloss.data.datasets import data_folder as data_folder
    from metaloss.data.datasets._splits import Split as Split
    from metaloss.data.datasets._splits import join_splits as join_splits
    from metaloss.experiments.comparison import compare as compare
    from metaloss.experiments.inspection import inspect as inspect
    from metaloss.experiments.rank_study import study as study
    from metaloss.experiments.recommendation import recommend as recommend
    from metaloss.experiments.reproduction import reproduce as reproduce
    from metaloss.genomes import Genome as Genome
    from metaloss.genomes._symbolic import FormulaGenome as FormulaGenome
    from metaloss.inner.classifiers import Classifier as Classifier
    from metaloss.losses import phenotype as phenotype
    from metaloss.losses.language.formula import Formula as Formula
    from metaloss.search.elimination import eliminate as eliminate
    from metaloss.search.program import evolve as evolve
    from metaloss.search.program import resume as resume
    from metaloss.search.refinement import refine as refine
    from metaloss.strategies import Strategy as Strategy
    from metaloss.training.callbacks import ClockCallback as ClockCallback
    from metaloss.training.fitting import fit as fit
    from metaloss.training.fitting import fit_all as fit_all

# Looked up on first use: `import metaloss` and `metaloss --help` stay fast, and need no torch.
_PUBLIC = {
    "Classifier": "metaloss.inner.classifiers",
    "ClockCallback": "metaloss.training.callbacks",
    "Console": "metaloss.console",
    "Criterion": "metaloss.criterion.base",
    "Dataset": "metaloss.data.datasets",
    "Formula": "metaloss.losses.language.formula",
    "FormulaGenome": "metaloss.genomes._symbolic",
    "Genome": "metaloss.genomes",
    "Population": "metaloss.core.population",
    "Reporter": "metaloss.core.reporting",
    "Split": "metaloss.data.datasets._splits",
    "Strategy": "metaloss.strategies",
    "Stream": "metaloss.core.streams",
    "Vectors": "metaloss.core.population",
    "build": "metaloss.core.registry",
    "compare": "metaloss.experiments.comparison",
    "data_folder": "metaloss.data.datasets",
    "eliminate": "metaloss.search.elimination",
    "errors": "metaloss.errors",
    "evolve": "metaloss.search.program",
    "export": "metaloss.criterion.export",
    "fit": "metaloss.training.fitting",
    "fit_all": "metaloss.training.fitting",
    "inspect": "metaloss.experiments.inspection",
    "join_splits": "metaloss.data.datasets._splits",
    "load": "metaloss.criterion.loss_io",
    "phenotype": "metaloss.losses.phenotype",
    "recommend": "metaloss.experiments.recommendation",
    "refine": "metaloss.search.refinement",
    "reproduce": "metaloss.experiments.reproduction",
    "resume": "metaloss.search.program",
    "study": "metaloss.experiments.rank_study",
}

__all__ = ["__version__"]
__all__ += list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metaloss' has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    return getattr(module, name, module)  # `errors` and `phenotype` are modules


def __dir__() -> list[str]:
    return sorted(__all__)
