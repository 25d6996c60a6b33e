"""`Cnn` with compiled passes through its stages, for a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metaloss import kernels
from metaloss.core.streams import Stream
from metaloss.data.episodes import Tasks
from metaloss.inner.classifiers import Bound, Gradients, LogitGradient, Params
from metaloss.inner.classifiers._compiled import array
from metaloss.inner.classifiers.cnn import Cnn
from metaloss.kernels.classifiers.stages import Stages

MOST_FILTERS = 64  # of a stage; wider ones are torch's


def fits(filters: Sequence[int], device: torch.device) -> bool:
    """Whether there is a compiler, a CPU, and no stage that is too wide."""
    return kernels.available() and device.type == "cpu" and max(filters) <= MOST_FILTERS


@dataclass(frozen=True)
class PaddedPixels:
    """Images of T tasks within the room that a window needs around them.

    Attributes:
        x: each image's padded planes, flat.
        stages: the sizes.
    """

    x: Float[Tensor, "T N numbers"]
    stages: Stages

    @classmethod
    def of(cls, x: Float[Tensor, "T N K H W"], model: Cnn) -> "PaddedPixels":
        """These images, as a network's first stage sees them."""
        T, N, K, height, width = x.shape
        stages = Stages((K, height, width), model.filters, model.kernel)
        first = stages.all[0]
        padded = x.new_zeros(T, N, stages.padded)
        planes = padded[..., : K * first.plane].unflatten(2, (K, -1, first.line))
        before = (first.kernel - 1) // 2
        planes[..., before : before + height, before : before + width] = x
        return cls(padded, stages)

    def block(self, images: slice) -> "PaddedPixels":
        """Some of the images of every task."""
        return PaddedPixels(self.x[:, images], self.stages)

    def minibatch(self, index: Int[Tensor, "T b"]) -> "PaddedPixels":
        """A minibatch of each task's images."""
        task = torch.arange(len(index))[:, None]
        return PaddedPixels(self.x[task, index], self.stages)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Several tasks' images, side by side."""
        return cls(torch.cat([part.x for part in parts]), parts[0].stages)

    def __len__(self) -> int:
        return self.x.shape[1]


class CompiledCnn(Cnn):
    """The same classifier, where it `fits`."""

    def bind(self, tasks: Tasks, keys: list[Stream]) -> Bound:
        """The images, and weights and biases uniform within ±1/√fan-in."""
        image = tasks.train.images.shape
        train, val = (PaddedPixels.of(x.x(), self) for x in (tasks.train, tasks.val))
        return Bound(train, val, self.draw(train.x, image, tasks.ways, keys))

    def __call__(self, params: Params, inputs: Any) -> Float[Tensor, "P T N C"]:
        """The logits, class by class in memory."""
        from metaloss.kernels.classifiers.convnet import IMAGES

        logits = self._logits(params, inputs)
        self._forward(params, inputs, logits, _room(inputs, 1, IMAGES), keep=False)
        return logits.mT

    def gradients(self, params: Params, inputs: Any, slope: LogitGradient) -> Gradients:
        """The gradient of each classifier's value with respect to its parameters."""
        from metaloss.kernels.classifiers.convnet_gradient import backward

        logits = self._logits(params, inputs)
        images = logits.shape[0] * logits.shape[1] * len(inputs)
        kept = _room(inputs, images, images)
        x, table, parameters, head, _ = self._forward(params, inputs, logits, kept, keep=True)
        delta = slope(logits.mT).mT.contiguous()
        found = torch.empty(logits.shape[:2] + parameters.shape[1:], dtype=logits.dtype)
        gradients = {name: torch.empty_like(params[name]) for name in ("w_head", "b_head")}
        backward(
            x,
            table,
            array(delta),
            parameters,
            head,
            *kept,
            array(found),
            *map(array, gradients.values()),
        )
        parts = found.split([params[name][0, 0].numel() for name in self._names], 2)
        stages = {
            name: part.view(params[name].shape)
            for name, part in zip(self._names, parts, strict=True)
        }
        return {**stages, **gradients}

    @property
    def _names(self) -> list[str]:
        """The stages' parameters, in the order in which compiled loops read them."""
        return [f"{kind}{i}" for i in range(len(self.filters)) for kind in "wb"]

    def _forward(
        self, params: Params, inputs: Any, logits: Tensor, kept: tuple[Any, ...], *, keep: bool
    ) -> tuple[Any, ...]:
        """Fills the logits; returns what both passes read, candidates and tasks along one axis."""
        from metaloss.kernels.classifiers import convnet

        parameters = torch.cat([params[name].flatten(2) for name in self._names], 2)
        read = (
            inputs.x.contiguous().numpy(),
            inputs.stages.table,
            *map(array, (parameters, params["w_head"], params["b_head"])),
        )
        convnet.forward(*read, keep, *kept, array(logits))
        return read

    def _logits(self, params: Params, inputs: Any) -> Float[Tensor, "P T C N"]:
        head = params["w_head"]
        return head.new_empty(*head.shape[:3], len(inputs))


def _room(inputs: PaddedPixels, images: int, last: int) -> tuple[Any, ...]:
    """Room for what `convnet.forward` fills.

    These are pooled maps, those of the last stage, and codes.

    Args:
        inputs: what the networks see.
        images: of how many there is room.
        last: of how many there is room for the last stage's maps.
    """
    stages = inputs.stages
    number = inputs.x.numpy().dtype
    return tuple(
        np.empty(count + kernels.VECTOR, kind)
        for count, kind in (
            (images * stages.maps, number),
            (last * stages.last, number),
            (images * stages.codes, np.uint8),
        )
    )
