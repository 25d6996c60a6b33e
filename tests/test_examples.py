"""The examples and benchmarks run, on the smallest budget."""

import json
import runpy
import sys
from pathlib import Path

import pytest

import metaloss
from metaloss import criterion
from metaloss.criterion import Criterion
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.streams import Stream

ROOT = Path(metaloss.__file__).parent.parent
needs_checkout = pytest.mark.skipif(not (ROOT / "examples").is_dir(), reason="examples live in the checkout")


@pytest.fixture
def loss(tmp_path: Path) -> Path:
    network = MetaLossNetwork(start="random", features=2, hidden=2)
    candidate = network.sample(1, Stream(0))
    table = {"start": "random", "features": 2, "hidden": 2}
    criterion.save(tmp_path / "loss", Criterion(network, candidate), "mln", table, "# a loss\n")
    return tmp_path / "loss"


@needs_checkout
def test_the_training_example_runs_with_a_saved_loss(loss: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "train_with_a_learned_loss.py"))
    accuracy = example["main"](str(loss), shots=2, steps=2)
    assert set(accuracy) == {"cross-entropy", "learned loss"}
    assert all(0 <= share <= 1 for share in accuracy.values())
    assert "learned loss" in capsys.readouterr().out


@needs_checkout
@pytest.mark.parametrize("table", ["steps", "transfer"])
def test_the_tables_of_evidence_print_a_row(
    table: str, loss: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["--families", "fashionmnist-1shot", "--tuning-tasks", "2", "--test-tasks", "2"]
    monkeypatch.setattr(sys, "argv", ["evidence.py", table, str(loss), *sizes])
    module = runpy.run_path(str(ROOT / "benchmarks" / "evidence.py"))
    module["main"].__globals__["STEPS"] = (1, 2)
    module["main"]()
    assert len(capsys.readouterr().out.splitlines()) == (2 if table == "transfer" else 4)


@needs_checkout
def test_the_engine_benchmark_prints_both_sides_of_every_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["engine.py", "--quick", "--json"])
    module = runpy.run_path(str(ROOT / "benchmarks" / "engine.py"))
    module["main"].__globals__["SIZES"] = ((1, 2),)
    module["main"]()
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["mln", "ce"]
    assert all(row["trainings_per_second"] > 0 and row["sequential"] > 0 for row in rows)
