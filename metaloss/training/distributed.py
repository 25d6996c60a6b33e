"""One training on several devices: a process for each, of which this one is the first and alone
keeps anything.

The others are started for one training and ended with it, however it ends: what they hold are
copies.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from metaloss.errors import ProcessLost, SettingsError

WAIT = timedelta(hours=2)  # for the others, at most; they all wait while the first one measures
GRACE = 2.0  # seconds within which a process that fails has said why
HELD = {signal.SIGINT, signal.SIGTERM}  # the first process's to hear
GIVEN = "given.pt"


def check(devices: int, device: torch.device, images: int, needed: Mapping[str, Any]) -> None:
    """Say why a training cannot be spread over several devices.

    Args:
        devices: how many there should be.
        device: one of them.
        images: of a step.
        needed: what the other processes need, by name.

    Raises:
        SettingsError: there are fewer GPUs; the images cannot be cut in equal parts; what is needed
            cannot be copied to another process; this process already is one of several.
    """
    if device.type == "cuda" and devices > (count := torch.cuda.device_count()):
        raise SettingsError(
            f"devices: asked for {devices} GPUs, this machine has {count}  (metaloss doctor)"
        )
    if images % devices:
        raise SettingsError(
            f"batch: the {images} images of a step cannot be cut in equal parts for {devices} "
            "devices"
        )
    if distributed.is_initialized():
        raise SettingsError(
            f"devices: this process already is one of several; only another can start {devices}"
        )
    for name, thing in needed.items():
        try:
            pickle.dumps(thing)
        except Exception as error:  # pickle raises whatever an object leads it to
            reason = " ".join(str(error).split())[:200]
            raise SettingsError(
                f"devices: {name} cannot be copied to another process ({reason}): define its "
                "class at the top of a "
                "module, or train on one device"
            ) from None


def mean(value: Tensor, devices: int) -> Tensor:
    """The mean of a number over the devices."""
    if devices == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / devices


@contextlib.contextmanager
def spread(
    work: Callable[..., None], arguments: tuple[Any, ...], devices: int, device: torch.device
) -> Iterator[None]:
    """Within the block this process is the first of several, and the others do their work.

    Args:
        work: what they do; takes the number of the process, its device, and the arguments.
        arguments: are copied to them, tensors to the CPU.
        devices: how many processes there are.
        device: this one's.

    Raises:
        SettingsError: another process cannot read the arguments.
        ProcessLost: one has ended.
    """
    with tempfile.TemporaryDirectory(prefix="metaloss-") as name, _threads(devices):
        folder = Path(name)
        torch.save(arguments, folder / GIVEN)
        hook = sys.excepthook  # torch's group puts another one in its place
        others: list[_Other] = []
        try:
            for rank in range(1, devices):
                others.append(_Other(work, rank, devices, device.type, folder))
            for other in others:
                other.ready()
            # They have it open: nothing large is left behind, whatever happens.
            (folder / GIVEN).unlink()
            _meet(folder, 0, devices, device)
            yield
            distributed.destroy_process_group()
        # A connection that is closed, unless it is this process's own.
        except RuntimeError as error:
            for other in others:
                other.explain(error)
            raise
        finally:
            _leave(others)
            sys.excepthook = hook


class _Other:
    """One of the other processes."""

    def __init__(
        self, work: Callable[..., None], rank: int, devices: int, kind: str, folder: Path
    ) -> None:
        # A process that is forked from one with threads, or with a GPU in use, may hang.
        context = multiprocessing.get_context("spawn")
        self.name = f"the process of device {rank + 1} of {devices}"
        self.line, end = context.Pipe(duplex=False)
        self.process = context.Process(target=_run, args=(work, rank, devices, kind, folder, end))
        resource_tracker.ensure_running()  # else it is started now, and lets signals through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        end.close()

    def ready(self) -> None:
        """Wait until it has read what it needs."""
        if reason := self._said():
            raise SettingsError(
                f"devices: {self.name} cannot start: {reason}; it imports the program anew: does "
                "that begin its work "
                "under `if __name__ == '__main__':`, and are its classes in a file?"
            )

    def explain(self, error: Exception) -> None:
        """Raise a ProcessLost where it has ended."""
        if self.line.poll(GRACE):
            raise ProcessLost(f"{self.name} has ended: {self._said()}") from error

    def _said(self) -> str:
        try:
            return str(self.line.recv())
        except EOFError:
            self.process.join(GRACE)
            return f"it said nothing (exit code {self.process.exitcode})"


def _leave(others: list[_Other]) -> None:
    """End the group and the processes; after a sound end they end by themselves."""
    sound = not distributed.is_initialized()
    for other in others:
        other.process.join(GRACE if sound else 0)
        other.process.kill()
    if not sound and distributed.get_backend() == "nccl":
        # To destroy it would wait for the others.
        distributed.distributed_c10d._abort_process_group()
    elif not sound:
        distributed.destroy_process_group()
    for other in others:
        other.process.join()
        other.line.close()


def _run(
    work: Callable[..., None], rank: int, devices: int, kind: str, folder: Path, line: Connection
) -> None:
    """A process's whole life."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    try:
        arguments = torch.load(folder / GIVEN, map_location="cpu", mmap=True, weights_only=False)
        line.send("")
        _meet(folder, rank, devices, device)
        work(rank, device, *arguments)
        distributed.destroy_process_group()
    except BaseException as error:
        with contextlib.suppress(OSError):  # nobody listens any more
            line.send(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _meet(folder: Path, rank: int, devices: int, device: torch.device) -> None:
    """Join the group of all processes, by a file; Lightning finds it and makes none."""
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=devices,
        timeout=WAIT,
    )


@contextlib.contextmanager
def _threads(devices: int) -> Iterator[None]:
    """Divide this process's threads among all processes within the block.

    Lightning would divide those of the machine, and would not undo it.
    """
    before = torch.get_num_threads()
    said = os.environ.get("OMP_NUM_THREADS")
    each = max(1, before // devices)
    torch.set_num_threads(each)
    os.environ["OMP_NUM_THREADS"] = str(each)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        os.environ.pop("OMP_NUM_THREADS")
        if said is not None:
            os.environ["OMP_NUM_THREADS"] = said
