"""Where memory runs out, a run goes on with less of it, or ends with one line.

The limits are real: they hold for the process.
"""

import json
import re
import subprocess
import sys

import pytest

from metaloss import cli
from metaloss.errors import DataError, DiskError, out_of_memory

SHRUNK = """
import resource, sys, torch
torch.set_num_threads(1)
import metaloss
from metaloss.core.reporting import Reporter

class Limit(Reporter):
    def on_baseline(self, *anything):
        pages = int(open("/proc/self/statm").read().split()[0])
        most = pages * resource.getpagesize() + (80 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    def on_generation(self, record, *anything):
        print(*record["events"])
        sys.exit()

metaloss.evolve(
    "fashionmnist", genome="tree", out=sys.argv[1], reporter=Limit(), generations=1, rates=[0.1],
    shots=1, val=100,
    strategy={"kind": "mu_plus_lambda", "mu": 1, "lambda_": 1}, finalists=1,
    tasks_per_generation=32,
    baseline_tasks=2, winner_tasks=2, test_tasks=2, classifier={"kind": "mlp", "hidden": [4]},
    inner={"steps": 1, "optimiser": "adam"},
)
"""


def test_a_search_whose_tasks_do_not_fit_at_once_goes_on_with_fewer(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SHRUNK, tmp_path], capture_output=True, text=True, check=False
    )
    assert re.match(r"out of memory: chunks cut to 1/[0-9]+\n$", done.stdout), done.stderr[-2000:]
    [line] = (
        (tmp_path / "fashionmnist-tree-mu_plus_lambda-0" / "history.jsonl").read_text().splitlines()
    )
    assert done.stdout.strip() in json.loads(line)["events"]


LIMITED = """
import resource, sys
import metaloss.cli, metaloss.search.program, metaloss.evaluation.plots
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (16 << 20),) * 2)
metaloss.cli.main(["evolve", "--tasks", "fashionmnist", "--out", sys.argv[1]])
"""


def test_a_command_whose_data_does_not_fit_ends_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {cli.NO_MEMORY}\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9 bytes"
        ),
        ImportError("libtorch.so: failed to map segment from shared object"),
    ],
    ids=["python", "system", "torch", "loader"],
)
def test_memory_that_ran_out_is_told_from_other_errors_even_where_one_covers_it(error):
    assert out_of_memory(error)
    covered = DataError("scan.png: cannot be read")
    covered.__cause__ = error
    assert out_of_memory(covered)
    assert not out_of_memory(DiskError("the disk is full"))


def test_no_error_of_memory_is_called_a_bug(metaloss, monkeypatch):
    def fail(*anything, **more):
        raise MemoryError

    monkeypatch.setattr(cli.cli, "main", fail)
    assert metaloss("doctor") == (1, "", f"error: {cli.NO_MEMORY}\n")
