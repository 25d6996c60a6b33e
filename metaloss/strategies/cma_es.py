"""CMA-ES: an evolution strategy with covariance matrix adaptation.

Equations are those of Hansen 2016, "The CMA evolution strategy: a tutorial".
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss.core.population import Population
from metaloss.core.streams import Stream
from metaloss.core.variation import Variation

__all__ = ["CmaEs"]


@dataclass(frozen=True)
class CmaEsState:
    """The searched vector m, the step size σ, the covariance C and the two evolution paths.

    All but the vector are in float64.
    """

    mean_candidate: Population
    sigma: Float[Tensor, ""]
    covariance: Float[Tensor, "D D"]
    path: Float[Tensor, " D"]  # p_c
    conjugate: Float[Tensor, " D"]  # p_σ
    steps: int


@dataclass(frozen=True)
class Rates:
    """The learning rates in D dimensions (Hansen 2016, table 1, with positive weights alone)."""

    weights: Float[Tensor, " mu"]
    D: int

    @cached_property
    def mu(self) -> float:
        """μ_eff, how many candidates the recombined one is worth."""
        return 1 / float(self.weights.square().sum())

    @property
    def sigma(self) -> float:
        """c_σ, the learning rate of the step size's path."""
        return (self.mu + 2) / (self.D + self.mu + 5)

    @property
    def damping(self) -> float:
        """d_σ, the damping of the step size."""
        return 1 + 2 * max(0.0, math.sqrt((self.mu - 1) / (self.D + 1)) - 1) + self.sigma

    @property
    def path(self) -> float:
        """c_c, the learning rate of the covariance's path."""
        return (4 + self.mu / self.D) / (self.D + 4 + 2 * self.mu / self.D)

    @property
    def one(self) -> float:
        """c_1, the learning rate of the covariance from its path."""
        return 2 / ((self.D + 1.3) ** 2 + self.mu)

    @property
    def many(self) -> float:
        """c_μ, the learning rate of the covariance from the μ best."""
        return min(
            1 - self.one, 2 * (self.mu - 2 + 1 / self.mu + 1 / 4) / ((self.D + 2) ** 2 + self.mu)
        )

    @property
    def length(self) -> float:
        """E‖N(0, I)‖, nearly: the mean length of a normal vector."""
        return math.sqrt(self.D) * (1 - 1 / (4 * self.D) + 1 / (21 * self.D**2))


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class CmaEs:
    """Samples a normal distribution, and moves and shapes it after the better half of the sample.

    Its work grows with the third power of the number of genes: for some hundreds of them, not for
    thousands.

    Attributes:
        population: candidates a generation.
        sigma: the first standard deviation of every gene.
    """

    population: Annotated[int, Field(ge=4, le=4096)] = 32
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05

    needs_vectors: ClassVar[bool] = True
    states: ClassVar[tuple[type, ...]] = (CmaEsState,)

    def epoch(self, generation: int) -> int:
        """The generation: each has fresh tasks."""
        return generation

    def init(self, genome: Variation, key: Stream) -> CmaEsState:
        """The first sample, with the same deviation along every axis."""
        centre = genome.sample(1, key.at("sample"))
        zeros = centre.vectors().new_zeros(centre.vectors().shape[1], dtype=torch.float64)
        sigma = torch.tensor(self.sigma, dtype=torch.float64)
        return CmaEsState(
            centre, sigma, torch.eye(len(zeros), dtype=torch.float64), zeros, zeros, 0
        )

    def ask(
        self, state: CmaEsState, genome: Variation, key: Stream
    ) -> tuple[Population, CmaEsState]:
        """m + σ C^½ z (equations 38 to 40)."""
        scales, axes = _axes(state.covariance)
        z = key.at("noise").normal(self.population, len(scales)).double()
        x = state.mean_candidate.vectors() + state.sigma * (z * scales) @ axes.mT
        return state.mean_candidate.from_vectors(x.float()), state

    def tell(
        self, state: CmaEsState, population: Population, fitness: Float[Tensor, " P"]
    ) -> CmaEsState:
        """Recombine the better half, then adapt σ and C; where all fail, nothing moves."""
        order = fitness.argsort(descending=True, stable=True)[: self.population // 2]
        # Failures do not steer: their ranks among each other mean nothing.
        order = order[fitness[order].isfinite()]
        if not len(order):
            return state
        m = state.mean_candidate.vectors().double()[0]
        y = (population[order].vectors().double() - m) / state.sigma
        rates = Rates(_weights(self.population, len(order)), len(m))
        t = state.steps + 1
        step = rates.weights @ y  # (41)
        scales, axes = _axes(state.covariance)
        # C^-½ step: into the principal axes, scaled there, and back.
        whitened = axes @ ((step @ axes) / scales)
        keep = 1 - rates.sigma
        # (43).
        conjugate = (
            keep * state.conjugate
            + math.sqrt(rates.sigma * (2 - rates.sigma) * rates.mu) * whitened
        )
        ratio = float(conjugate.norm()) / rates.length
        # At most e-fold at once: one lucky generation must not make the step size explode.
        sigma = state.sigma * math.exp(min(1.0, rates.sigma / rates.damping * (ratio - 1)))  # (44)
        # While the step size still grows fast, the path would stretch C too far (h_σ).
        calm = ratio / math.sqrt(1 - keep ** (2 * t)) < 1.4 + 2 / (len(m) + 1)  # h_σ
        push = math.sqrt(rates.path * (2 - rates.path) * rates.mu) if calm else 0.0
        path = (1 - rates.path) * state.path + push * step  # (45)
        # Without the path's push C would lose variance: that much is put back.
        lost = 0.0 if calm else rates.one * rates.path * (2 - rates.path)
        covariance = (
            1 - rates.one - rates.many + lost
        ) * state.covariance + rates.one * torch.outer(path, path)
        covariance = covariance + rates.many * (y.mT * rates.weights) @ y  # (47)
        centre = state.mean_candidate.from_vectors((m + state.sigma * step).float()[None])  # (42)
        # Symmetric again after rounding: eigh reads one triangle alone.
        return CmaEsState(centre, sigma, (covariance + covariance.mT) / 2, path, conjugate, t)

    def mean_candidate(self, state: CmaEsState) -> Population:
        """The mean of the distribution that candidates are drawn from."""
        return state.mean_candidate


def _weights(population: int, n: int) -> Float[Tensor, " n"]:
    """The weights w_i ∝ ln((λ + 1)/2) - ln i, which add up to 1 (equations 49 and 53).

    As many candidates have one as did not fail.
    """
    w = math.log((population + 1) / 2) - torch.arange(1, n + 1, dtype=torch.float64).log()
    return w / w.sum()


def _axes(covariance: Float[Tensor, "D D"]) -> tuple[Float[Tensor, " D"], Float[Tensor, "D D"]]:
    """Standard deviations along the principal axes, and these as columns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with several, large ones would round differently
    try:
        variances, axes = torch.linalg.eigh(covariance)
    finally:
        torch.set_num_threads(threads)
    # Rounding can leave a variance at or below 0, which has no root.
    return variances.clamp(min=1e-20).sqrt(), axes
