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
    from metaloss import phenotype as phenotype
    from metaloss.catalogue import load as load
    from metaloss.classifiers import Classifier as Classifier
    from metaloss.comparison import compare as compare
    from metaloss.console import Console as Console
    from metaloss.criterion import Criterion as Criterion
    from metaloss.datasets import Dataset as Dataset
    from metaloss.datasets import data_folder as data_folder
    from metaloss.datasets._splits import Split as Split
    from metaloss.datasets._splits import join_splits as join_splits
    from metaloss.elimination import eliminate as eliminate
    from metaloss.genomes import Genome as Genome
    from metaloss.genomes._symbolic import FormulaGenome as FormulaGenome
    from metaloss.language.formula import Formula as Formula
    from metaloss.population import Population as Population
    from metaloss.population import Vectors as Vectors
    from metaloss.recommendation import recommend as recommend
    from metaloss.refinement import refine as refine
    from metaloss.registry import build as build
    from metaloss.reproduction import reproduce as reproduce
    from metaloss.search import evolve as evolve
    from metaloss.search import resume as resume
    from metaloss.strategies import Strategy as Strategy
    from metaloss.streams import Stream as Stream
    from metaloss.studies import study as study
    from metaloss.training.fitting import fit as fit
    from metaloss.training.fitting import fit_all as fit_all

# Looked up on first use: `import metaloss` and `metaloss --help` stay fast, and need no torch.
_PUBLIC = {
    "Classifier": "metaloss.classifiers",
    "Console": "metaloss.console",
    "Criterion": "metaloss.criterion",
    "Dataset": "metaloss.datasets",
    "Formula": "metaloss.language.formula",
    "FormulaGenome": "metaloss.genomes._symbolic",
    "Genome": "metaloss.genomes",
    "Population": "metaloss.population",
    "Split": "metaloss.datasets._splits",
    "Strategy": "metaloss.strategies",
    "Stream": "metaloss.streams",
    "Vectors": "metaloss.population",
    "build": "metaloss.registry",
    "compare": "metaloss.comparison",
    "data_folder": "metaloss.datasets",
    "eliminate": "metaloss.elimination",
    "errors": "metaloss.errors",
    "evolve": "metaloss.search",
    "fit": "metaloss.training.fitting",
    "fit_all": "metaloss.training.fitting",
    "join_splits": "metaloss.datasets._splits",
    "load": "metaloss.catalogue",
    "phenotype": "metaloss.phenotype",
    "recommend": "metaloss.recommendation",
    "refine": "metaloss.refinement",
    "reproduce": "metaloss.reproduction",
    "resume": "metaloss.search",
    "study": "metaloss.studies",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metaloss' has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
