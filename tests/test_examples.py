"""The examples and benchmarks run, on the smallest budget."""

import runpy
import sys
from pathlib import Path

import pytest

import metaloss
from metaloss.core import registry
from metaloss.core.streams import Stream
from metaloss.criterion import loss_io
from metaloss.criterion.genome import GenomeCriterion
from metaloss.genomes.mln import MetaLossNetwork
from metaloss.search import elimination, estimate, settings
from metaloss.tasks import opening

ROOT = Path(metaloss.__file__).parent.parent
needs_checkout = pytest.mark.skipif(
    not (ROOT / "examples").is_dir(), reason="examples live in the checkout"
)


@pytest.fixture
def loss(tmp_path: Path) -> Path:
    network = MetaLossNetwork(start="random", features=2, hidden=2)
    candidate = network.sample(1, Stream(0))
    loss_io.save(tmp_path / "loss", GenomeCriterion(network, candidate), "# a loss\n")
    return tmp_path / "loss"


@needs_checkout
def test_the_training_example_runs_with_a_saved_loss(
    loss: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "train_with_a_learned_loss.py"))
    accuracy = example["main"](str(loss), shots=2, steps=2)
    assert set(accuracy) == {"cross-entropy", "learned loss"}
    assert all(0 <= share <= 1 for share in accuracy.values())
    assert "learned loss" in capsys.readouterr().out


@needs_checkout
def test_the_papers_search_and_its_elimination_are_what_its_text_says() -> None:
    search = settings.resolve(settings.read(ROOT / "examples" / "morgan-search.toml"))
    genome, strategy = search.build_parts()
    assert (strategy.initial, strategy.population, strategy.tournament) == (1000, 100, 20)
    assert (
        sum(estimate.count_candidates(genome, strategy, search.generations, Stream(0)))
        == 1000 + 2000 + 1
    ), "and cross-entropy"
    assert [family.training.steps for family in search.families] == [20_000]
    table = settings.read(ROOT / "examples" / "morgan-elimination.toml")
    chosen = registry.from_table(elimination.Elimination, table, "elimination")
    assert [chosen.start, *(stage.keep for stage in chosen.stages)] == [100, 24, 12, 6, 3]
    assert [opening.read(*stage.families).training.steps for stage in chosen.stages] == [
        96_000,
        *[117_300] * 3,
    ]
    assert [stage.mean_of for stage in chosen.stages] == [1, 1, 2, 3]


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
