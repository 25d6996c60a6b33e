"""Processes that work together do, say why they cannot, and leave nothing behind."""

import multiprocessing
import os

import pytest
import torch
from torch import nn

from metaloss.errors import Interrupted, ProcessLost, SettingsError
from metaloss.training import distributed

CPU = torch.device("cpu")


def add(rank, device, value):
    for _ in range(2):
        distributed.mean(value * rank, 2)


def vanish(rank, device, value):
    os._exit(7)


class Unreadable:
    """Can be written, and not be read."""

    def __reduce__(self):
        return int, ("none",)


def clean():
    return not multiprocessing.active_children() and not torch.distributed.is_initialized()


def test_a_mean_is_over_all_processes_and_they_end_with_the_first():
    threads = torch.get_num_threads()
    said = os.environ.get("OMP_NUM_THREADS")
    with (  # noqa: PT012 - the process is at work while the error is raised
        pytest.raises(Interrupted),
        distributed.spread(add, (torch.tensor(6.0),), 2, CPU),
    ):
        assert float(distributed.mean(torch.tensor(2.0), 2)) == 4.0
        raise Interrupted  # while the other one waits for its second mean
    assert (torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")) == (threads, said)
    assert clean()


def test_a_process_that_ends_is_named():
    reason = r"the process of device 2 of 2 has ended: it said nothing \(exit code 7\)"
    with (
        pytest.raises(ProcessLost, match=reason),
        distributed.spread(vanish, (torch.tensor(6.0),), 2, CPU),
    ):
        distributed.mean(torch.tensor(2.0), 2)
    assert clean()


def test_what_another_process_cannot_read_is_refused():
    with (
        pytest.raises(
            SettingsError,
            match=r"device 2 of 2 cannot start: ValueError: invalid literal .*__main__",
        ),
        distributed.spread(add, (Unreadable(),), 2, CPU),
    ):
        pass
    assert clean()


@pytest.mark.parametrize(
    ("kind", "devices", "images", "message"),
    [
        (
            "cpu",
            2,
            127,
            "batch: the 127 images of a step cannot be cut in equal parts for 2 devices",
        ),
        ("cuda", 3, 128, r"devices: asked for 3 GPUs, this machine has 2  \(metaloss doctor\)"),
        (
            "cpu",
            2,
            128,
            r"devices: the network cannot be copied to another process \(.*local.*\): "
            r"define its class",
        ),
    ],
)
def test_what_cannot_be_spread_is_said(kind, devices, images, message, monkeypatch):
    class Local(nn.Linear):
        pass

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match=message):
        distributed.check(devices, torch.device(kind), images, {"the network": Local(2, 2)})
