"""The examples and benchmarks run, on the smallest budget."""

import runpy
import sys
from pathlib import Path

import pytest

import metaloss
from metaloss import catalogue
from metaloss.criterion import GenomeCriterion
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.streams import Stream

ROOT = Path(metaloss.__file__).parent.parent
needs_checkout = pytest.mark.skipif(not (ROOT / "examples").is_dir(), reason="examples live in the checkout")


@pytest.fixture
def loss(tmp_path: Path) -> Path:
    network = MetaLossNetwork(start="random", features=2, hidden=2)
    candidate = network.sample(1, Stream(0))
    catalogue.save(tmp_path / "loss", GenomeCriterion(network, candidate), "# a loss\n")
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
