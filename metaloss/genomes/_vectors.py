"""How real vectors vary, whatever they stand for."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss.core.population import Vectors
from metaloss.core.streams import Stream


class RealVectors:
    """The variation of every genome of real vectors."""

    def mutate(self, parents: Vectors, strength: Float[Tensor, "P D"], key: Stream) -> Vectors:
        """Normal noise of this standard deviation on every number."""
        x = parents.vectors()
        return parents.from_vectors(x + strength * key.normal(*x.shape))

    def crossover(self, a: Vectors, b: Vectors, key: Stream) -> Vectors:
        """The middle between the two parents (intermediate recombination)."""
        return a.from_vectors((a.vectors() + b.vectors()) / 2)

    def valid(self, population: Vectors) -> Int[Tensor, " P"]:
        """0 everywhere: every vector stands for a loss."""
        return torch.zeros(len(population), dtype=torch.int64)
