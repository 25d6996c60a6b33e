"""Chunks as bytes: rows and keys travel, images stay where they are."""

import io
import pickle
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from metaloss.data.episodes import Images
from metaloss.engines.blocks import Column


class SharedTensors:
    """Images that chunks refer to by a number instead of holding them.

    A tensor has its number for as long as it lives in this process.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._next = 0
        self.gone: list[int] = []  # numbers whose tensors are no more, to be forgotten elsewhere

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor, a new one where it has none."""
        address = id(tensor)
        if address not in self._numbers:
            self._numbers[address] = self._next
            self._next += 1
            weakref.finalize(tensor, self._forget, address)
        return self._numbers[address]

    def known(self, tensor: Tensor) -> int | None:
        """The number of a tensor that has one."""
        return self._numbers.get(id(tensor))

    def _forget(self, address: int) -> None:
        self.gone.append(self._numbers.pop(address))


def images_of(columns: Iterable[Column]) -> Iterator[Tensor]:
    """The tensors of the data sets that columns are about."""
    for column in columns:
        for images in (column.tasks.train.images, column.tasks.val.images):
            yield images.pixels if isinstance(images, Images) else images.values


def dumps(message: Any, shared: SharedTensors, pickler: Any) -> bytes:
    """A message as bytes.

    Args:
        message: tensors in it are cut to what they show; those of `shared` are their numbers.
        shared: the images that the other side has.
        pickler: for what is defined where the other side has no module to import, such as a
            notebook's own classes, one that writes these down whole.
    """

    file = io.BytesIO()
    writer = _writer(pickler)(file, protocol=5)
    writer.known = shared.known
    writer.dump(message)
    return file.getvalue()


@cache
def _writer(pickler: Any) -> Any:
    """A pickler of messages, of this kind otherwise."""

    class Writer(pickler):
        known: Callable[[Tensor], int | None]

        def reducer_override(self, part: Any) -> Any:
            if type(part) is Tensor and part.dtype in _AS_ARRAYS:
                number = self.known(part)
                return _reduced(part) if number is None else (_shared, (number,))
            above = getattr(super(), "reducer_override", None)
            return above(part) if above else NotImplemented

    return Writer


def loads(data: bytes, tensor: Callable[[int], Tensor]) -> Any:
    """A message from bytes.

    Args:
        data: what `dumps` gave.
        tensor: the shared tensor of a number.
    """

    _reader.tensor = tensor
    try:
        return pickle.loads(data)
    finally:
        _reader.tensor = None


class _Reader(threading.local):
    """What gives the shared tensors of the message that a thread reads."""

    tensor: Callable[[int], Tensor] | None = None


_reader = _Reader()


def _shared(number: int) -> Tensor:
    """The shared tensor of a number.

    A function of its own and no persistent id: for that every part of a message is asked.
    """
    assert _reader.tensor is not None
    return _reader.tensor(number)


_AS_ARRAYS = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float32,
    torch.float64,
)


def _reduced(x: Tensor) -> tuple[Any, ...]:
    """A tensor without what its storage holds beside it, in its own order in memory."""
    # A view of a few rows would take its whole storage along.
    dense = x.detach().clone(memory_format=torch.preserve_format).cpu()
    strides = dense.stride()
    order = sorted(range(dense.ndim), key=lambda axis: -strides[axis])
    return _restored, (dense.permute(order).numpy(), order, x.device.type)


def _restored(array: Shaped[np.ndarray, "..."], order: list[int], device: str) -> Tensor:
    tensor = torch.from_numpy(array).permute([order.index(axis) for axis in range(len(order))])
    return tensor.to(device)
