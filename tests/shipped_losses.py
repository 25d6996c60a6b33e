"""The losses that come with the package, with a stand-in for `few-shot` among them or without."""

import shutil

from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.genome import GenomeCriterion
from metaloss.genomes.targets import LearnedTargets

FEW_SHOT = "few-shot"


def without_few_shot(patch, folder):
    """The same losses but `few-shot`, in a folder that may be written to."""
    shipped = folder / "shipped"
    shutil.copytree(loss_io.SHIPPED, shipped, ignore=shutil.ignore_patterns(FEW_SHOT))
    patch.setattr(loss_io, "SHIPPED", shipped)


def with_few_shot(patch, folder):
    """The same losses, and learned targets that see the clock as `few-shot`."""
    without_few_shot(patch, folder)
    genome = LearnedTargets(clock=True)
    start = genome.sample(1, Stream(0))
    candidate = type(start)(start.values + 0.05 * Stream(1).normal(1, genome.size))
    about = {"name": FEW_SHOT, "evolved on": "a mixture", "data sets": "fashionmnist"}
    loss = GenomeCriterion(genome, candidate, about, normalise=True, steps=60)
    loss_io.save(loss_io.SHIPPED / FEW_SHOT, loss, "# few-shot\n")
