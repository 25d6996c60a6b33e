"""The dual-channel Meta-Loss Network (Hai 2021, section 3.2), as a population of weight vectors.

One channel reads what the classifier says (ŷ), one the label (y); their outputs are put together
and an integration block of convolutions turns them into a loss. The paper prints no sizes, kernels
or activations: those here are ours.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from metaloss import kernels
from metaloss.core.population import Vectors
from metaloss.core.streams import Stream
from metaloss.errors import SettingsError
from metaloss.genomes._channels import CHANNELS
from metaloss.genomes._clock import SeesClock
from metaloss.genomes._compiled import CompiledEquivariant
from metaloss.genomes._equivariant import Equivariant
from metaloss.genomes._figure3 import Figure3
from metaloss.genomes._first import StartsAt
from metaloss.genomes._networks import Weights
from metaloss.genomes._prior import SeesPrior
from metaloss.genomes._situations import situations
from metaloss.genomes._vectors import RealVectors
from metaloss.losses import zoo
from metaloss.losses.base import (
    CrossEntropies,
    Losses,
    TrainingTargets,
    logit_gradient_by_autograd,
)
from metaloss.losses.clock import DEFAULT_STEPS, HALFWAY
from metaloss.losses.formulas import Formulas
from metaloss.losses.phenotype import gain

__all__ = ["MetaLossNetwork"]

PRIOR = "logprior"  # the channel that reads no prediction
Width = Annotated[int, Field(ge=1, le=256)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class MetaLossNetwork(StartsAt, SeesClock, SeesPrior, RealVectors):
    """Sizes of the network, and where the search starts.

    With `clock` the ŷ channel reads two numbers more of a training of N steps: t - 1/2, where t is
    the share of them that is done, and ln(N/50)/4.

    Attributes:
        architecture: "equivariant": weights shared over the classes, any number of them; "figure3":
            fully connected over a fixed number of classes, after the paper's figure 3.
        start: "random", or a loss whose gradient the first network is fitted to: "ce", another
            published loss by name, a formula. A loss that pulls harder or less at first than
            cross-entropy is scaled to pull as it does.
        smoothing: of the labels of that loss.
        channels: what the ŷ channel reads: probability, log-probability, centred logit; and, for
            families whose classes are uneven, "logprior", ln(C·π) of the class's share π of the
            training images.
        features: outputs of each channel.
        hidden: width of the integration block.
        context: what a class's term sees of the other classes: nothing, the mean of the ŷ channel
            over the classes, or that and the label's mean of it.
        activation: between the layers.
        home_classes: tasks with another number of classes are shown to the "equivariant" network as
            if they had this many: uniform and certain predictions look the same, so a loss carries
            over from one number to another.
        fixed_classes: the number of classes of "figure3".
        kernel: the convolutions' width in "figure3".
    """

    architecture: Literal["equivariant", "figure3"] = "equivariant"
    start: str = "ce"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    channels: Annotated[
        tuple[Literal["p", "logp", "logit", "logprior"], ...], Field(min_length=1)
    ] = ("p", "logp")
    features: Width = 8
    hidden: Width = 16
    context: Literal["none", "mean", "label"] = "label"
    activation: Literal["tanh", "relu", "softplus"] = "tanh"
    home_classes: Annotated[int, Field(ge=2, le=1000)] = 10
    fixed_classes: Annotated[int, Field(ge=2, le=1000)] = 10
    kernel: Annotated[int, Field(ge=1, le=9)] = 3

    vector: ClassVar[bool] = True
    usual: ClassVar[Mapping[str, Any]] = {
        "strategy": {"kind": "mu_plus_lambda"},
        "generations": 400,
    }
    reasons: ClassVar[tuple[str, ...]] = ("",)
    populations: ClassVar[tuple[type, ...]] = (Vectors,)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.architecture == "figure3" and self.kernel > self.features:
            raise ValueError(
                f"kernel must be at most features = {self.features}, got {self.kernel}"
            )
        if not self._of_prediction:
            raise ValueError("channels must hold p, logp or logit")
        if self.start not in ("ce", "random"):
            zoo.read(self.start)
        return self

    @property
    def reads_prior(self) -> bool:
        """Whether a candidate depends on how many training images each class has."""
        return self.prior or PRIOR in self.channels

    @property
    def _of_prediction(self) -> tuple[str, ...]:
        """The channels but for the prior, which stands behind them."""
        return tuple(name for name in self.channels if name != PRIOR)

    @property
    def classes(self) -> int | None:
        """The one number of classes it works for; None: any."""
        return self.fixed_classes if self.architecture == "figure3" else None

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Name and shape of every weight, outputs × inputs; their order is the vector's."""
        if self.architecture == "figure3":
            sizes = (self.features, self.hidden, self.fixed_classes, self.kernel)
            return Figure3.shapes(len(self.channels), *sizes, self.clock)
        return Equivariant.shapes(
            len(self.channels), self.features, self.hidden, self.context, self.clock
        )

    @property
    def size(self) -> int:
        """How many numbers a candidate is: the weights, and what `prior` adds."""
        return sum(math.prod(shape) for shape in self.shapes.values()) + self.prior_genes

    def sample(self, n: int, key: Stream) -> Vectors:
        """n random networks, or n copies of the first one or of the one that imitates a loss."""
        if (first := self.copies_of_first(n, self.size)) is not None:
            return Vectors(first)
        if self.start == "random":
            weights = torch.cat([self._random(key.at(i)) for i in range(n)])
        else:
            weights = imitate(self, key.seed).repeat(n, 1)
            if PRIOR in self.channels:
                # What is imitated does not read it.
                self._weights_of_prior(weights).zero_()
            if self.clock:
                self.weights(weights)["w_clock"].zero_()
        return Vectors(self.with_prior_genes(weights))

    def losses(self, population: Vectors) -> Losses:
        """The networks, side by side."""
        vectors = population.vectors()
        return self.adjusted(self.networks(vectors), vectors)

    def networks(self, vectors: Float[Tensor, "P D"]) -> Equivariant | Figure3:
        """The networks with these weights, differentiable in them."""
        equivariant = CompiledEquivariant if kernels.available() else Equivariant
        kind = Figure3 if self.architecture == "figure3" else equivariant
        channels = tuple(CHANNELS[c] for c in self._of_prediction)
        networks = kind.of(
            self.weights(vectors), channels, self.activation, self.classes or self.home_classes
        )
        return replace(networks, sees_prior=True) if PRIOR in self.channels else networks

    def _weights_of_prior(self, vectors: Float[Tensor, "P D"]) -> Float[Tensor, "P out columns"]:
        """The weights from the prior to the first layer, a view of these vectors."""
        w_pred = self.weights(vectors)["w_pred"]
        return w_pred[..., -(w_pred.shape[2] // len(self.channels)) :]

    def weights(self, vectors: Float[Tensor, "P D"]) -> Weights:
        """The weights by name, views of these vectors."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        blocks = vectors[:, : sum(sizes)].split(sizes, dim=1)
        return {
            name: block.unflatten(1, shape)
            for (name, shape), block in zip(self.shapes.items(), blocks, strict=True)
        }

    def describe(self, population: Vectors, row: int) -> str:
        """Sizes in one line."""
        fixed = f", {self.fixed_classes} classes" if self.classes else ""
        return (
            f"Meta-Loss Network ({self.architecture}{fixed}, "
            f"{self.size} weights, {self.activation}{', clock' if self.clock else ''}"
            f"{self.describe_moves(population[row : row + 1].vectors())})"
        )

    def torch_source(self, population: Vectors) -> list[str]:
        """The lines of Python that compute the one network's terms of logits z and targets y.

        Raises:
            SettingsError: the architecture has none.
        """
        if self.architecture != "equivariant":
            raise SettingsError(
                f"the architecture '{self.architecture}' has no Python; .pt2 can hold it"
            )
        vectors = population.vectors()
        weights = self.weights(vectors)
        act = {
            "tanh": "torch.tanh",
            "relu": "torch.relu",
            "softplus": "torch.nn.functional.softplus",
        }[self.activation]
        home = self.home_classes
        channel = {
            "p": "logp.exp() * stretch + (1 - stretch)",
            "logp": f"logp + math.log(C / {home})",
            "logit": "logp - logp.mean(-1, keepdim=True)",
        }
        inputs = [channel[name] for name in self._of_prediction]
        if PRIOR in self.channels:
            inputs.append('self.class_terminals(C, z)["logprior"].expand_as(logp)')
        context = []
        if self.context in ("mean", "label"):
            context.append("u = u + (w_mean @ h.mean(1, keepdim=True).mT).mT")
        if self.context == "label":
            context.append("u = u + (w_true @ (h * y[..., None]).sum(1, keepdim=True).mT).mT")
        lines = [
            *[f"{name} = z.new_tensor({w[0].tolist()})" for name, w in weights.items()],
            "logp = z.log_softmax(-1)",
            "C = z.shape[-1]",
            f"stretch = 1.0 if C == {home} else (1 - 1 / {home}) * C / max(1, C - 1)",
            f"x = torch.stack([{', '.join(inputs)}], -1)",
            *self._clock_source(),
            f"h = {act}(x @ w_pred.mT + b_pred[:, 0])",
            f"label = {act}(y[..., None] @ w_label.mT + b_label[:, 0])",
            "u = h @ w_mix_pred.mT + label @ w_mix_label.mT + b_mix[:, 0]",
            *context,
            f"return ({act}(u) @ w_out.mT)[..., 0]",
        ]
        return self.adjusted_source(lines, vectors)

    def _clock_source(self) -> list[str]:
        """The lines that put what the network reads of the clock into its first bias."""
        if not self.clock:
            return []
        return [
            "t, logn = self.clock_terminals(z).values()",
            f"read = torch.stack([t - {HALFWAY}, (logn - math.log({DEFAULT_STEPS})) / 4])",
            "b_pred = b_pred + w_clock @ read[:, None]",
        ]

    def _random(self, key: Stream) -> Float[Tensor, "1 D"]:
        """Weights normal with variance 1/inputs, biases with 0.1²."""
        spread = {
            k: 0.1 if k.startswith("b_") else shape[1] ** -0.5 for k, shape in self.shapes.items()
        }
        parts = [
            key.at(k).normal(1, math.prod(shape)) * spread[k] for k, shape in self.shapes.items()
        ]
        return torch.cat(parts, 1)


# Cached: the fit takes many steps, and depends on these arguments alone.
@lru_cache(maxsize=16)
def imitate(network: MetaLossNetwork, seed: int, steps: int = 600) -> Float[Tensor, "1 D"]:
    """The weights whose gradient at random logits is nearest to a loss's.

    They are fitted on one thread, so that the result is always the same.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        teacher: Losses = (
            CrossEntropies.of(1)
            if network.start == "ce"
            else Formulas.of([zoo.read(network.start)])
        )
        return _fit(network, teacher, Stream(seed).at("imitate"), steps)
    finally:
        torch.set_num_threads(threads)


def _fit(
    network: MetaLossNetwork, teacher: Losses, key: Stream, steps: int, rate: float = 0.02
) -> Tensor:
    vector = network._random(key.at("start")).requires_grad_()
    adam = torch.optim.Adam([vector], lr=rate)
    decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda i: 1 - i / (steps + 1))
    for i in range(steps):
        # A network that fits any number of classes sees several, its own the most.
        classes = (
            network.classes
            or (network.home_classes, 5, network.home_classes, 2, network.home_classes, 20)[i % 6]
        )
        logits, target = situations(128, classes, key.at(i))
        s = network.smoothing
        # A loss without a first pull stays as it is: nothing can be divided by 0.
        scale = abs(gain(teacher, classes)) or 1.0
        smoothed = TrainingTargets((1 - s) * target + s / classes)
        wanted = teacher.bind(smoothed).logit_gradient(logits) / scale
        student = network.networks(vector).bind(TrainingTargets(target))
        error = (logit_gradient_by_autograd(student, logits, create_graph=True) - wanted).square()
        adam.zero_grad()
        # A gradient is divided by the batch: undone here, or the error would depend on its size.
        (error.sum(-1).mean() * error.shape[2] ** 2).backward()
        adam.step()
        decay.step()
    return vector.detach()
