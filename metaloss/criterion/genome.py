"""A candidate of a genome as a criterion."""

from dataclasses import fields
from typing import Any, Self

from metaloss.core.population import Population
from metaloss.criterion.base import Criterion
from metaloss.genomes import Genome
from metaloss.losses.base import Losses


class GenomeCriterion(Criterion):
    """A candidate of a genome.

    Args:
        genome: the loss's representation.
        candidate: a population of one.
        about, options: as `Criterion`'s.
    """

    def __init__(
        self,
        genome: Genome,
        candidate: Population,
        about: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        # Before the module is made, which asks whether it reads the clock.
        self.reads_clock = bool(getattr(genome, "reads_clock", False))
        super().__init__(about, **options)
        self.genome = genome
        self.classes = genome.classes
        self._kind = type(candidate)
        self._fields = tuple(field.name for field in fields(candidate))
        # Buffers follow the module to its device; not persistent, they are in no `state_dict`.
        for name in self._fields:
            self.register_buffer(name, getattr(candidate, name).detach().clone(), persistent=False)
        self._know_gain()

    def _know_gain(self) -> None:
        """Compute what `normalise` divides by, where `torch.compile` could not trace it."""
        if self.normalise and self.classes:
            self.gain(self.classes)

    def at(self, step: int, steps: int) -> Self:
        """This loss, told where the training is (see `LossModule.at`)."""
        super().at(step, steps)
        self._know_gain()
        return self

    @property
    def candidate(self) -> Population:
        """The loss as a population of one."""
        return self._kind(**{name: getattr(self, name) for name in self._fields})

    @property
    def reads_prior(self) -> bool:
        """Whether its genome has a part for the classes' shares."""
        return bool(getattr(self.genome, "reads_prior", False))

    @property
    def reads_costs(self) -> bool:
        """Whether its genome has a part for the costs of mistakes."""
        return bool(getattr(self.genome, "reads_costs", False))

    def losses(self) -> Losses:
        """The candidate's loss."""
        return self.genome.losses(self.candidate)

    @property
    def identity(self) -> object:
        """The genome and the candidate's numbers."""
        return self.genome, [getattr(self, name).tolist() for name in self._fields]

    @property
    def home_classes(self) -> int:
        """The number of classes of its genome; a network's arithmetic depends on it."""
        return self.classes or int(getattr(self.genome, "home_classes", 10))

    def describe(self) -> str:
        """The genome's words for it."""
        return self.genome.describe(self.candidate, 0)

    def _copy(self, **options: Any) -> Self:
        return type(self)(self.genome, self.candidate, self.about, **options)
