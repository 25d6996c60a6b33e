"""The notebooks run from first to last cell on a tiny budget; their committed output is real."""

import importlib.util
import os
import re
from pathlib import Path

import pytest
import torch

import metaloss
from metaloss.core.streams import Stream
from metaloss.engines.local import Local

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

ROOT = Path(metaloss.__file__).parent.parent
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="examples live in the checkout")

NOTEBOOKS = {path.stem: path for path in sorted(EXAMPLES.rglob("[0-9]_*.ipynb"))}
LEARN2LEARN = "7_learn2learn"  # runs in an environment of its own
LIMIT = 300_000  # bytes
# Folders of whoever ran it last; the Debian package's data folder is the same everywhere.
MACHINE = re.compile(r"/(?:home|root|work|tmp|opt|Users|var|mnt)/|site-packages|(?<!\w)[A-Z]:\\")

TINY = {
    **{
        "generations": 2,
        "tasks_per_generation": 2,
        "validation": 3,
        "baseline_tasks": 2,
        "winner_tasks": 2,
    },
    **{
        "test_tasks": 2,
        "rates": (0.1,),
        "val": 3,
        "classifier": {"kind": "mlp", "hidden": [8]},
        "inner": {"steps": 3},
    },
}
NETWORK = {
    "genome": {"start": "random", "features": 2, "hidden": 2},
    "strategy": {"mu": 2, "lambda_": 2},
}
COMPARED = {key: TINY[key] for key in ("test_tasks", "rates", "val", "classifier", "inner")} | {
    "tuning_tasks": 2
}
FOLDER = "FOLDER = None\nSEEDS, EPOCHS, RATES = 1, 1, (0.1,)\n"
ADVISED = {"folds": 2, "tuning_tasks": 2, "test_tasks": 2, "rates": (0.1,)}
STEPS = "import metaloss.tasks.step_counts\nmetaloss.tasks.step_counts.STEPS = (3,)\n"
PARAMETERS = {
    "1_first_loss": f"{STEPS}BUDGET = {TINY | NETWORK}",
    "2_comparing": f"{STEPS}BUDGET, TRANSFER = {COMPARED}, {COMPARED}",
    "3_own_images": f"{STEPS}{FOLDER}BUDGET = {ADVISED}",
    "4_reading_a_loss": f"{STEPS}BUDGET = {TINY | {'strategy': {'mu': 4, 'lambda_': 4}}}",
    "5_training": "SEEDS, EPOCHS = 2, 1",
    "6_own_parts": "GENERATIONS, CHILDREN, TASKS, TEST_TASKS = 2, 2, 2, 2",
}

NEEDED = {"3_own_images": ("lightning",), "5_training": ("sklearn", "skorch", "lightning")}


def module(path):
    """A file of the checkout that is no part of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def outputs(notebook):
    return [each for cell in notebook.cells if cell.cell_type == "code" for each in cell.outputs]


def parameters(notebook):
    """The cell that says how large the notebook's runs are."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


def names(source):
    """The names that a cell of assignments gives."""
    lines = re.findall(r"^([A-Z_, ]+) = ", source, re.MULTILINE)
    return {name.strip() for line in lines for name in line.split(",")}


def test_every_notebook_has_a_tiny_budget():
    assert {*PARAMETERS, LEARN2LEARN} == set(NOTEBOOKS)


@pytest.mark.filterwarnings("ignore")  # those of Jupyter's own packages
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_notebook_runs(name, tmp_path):
    for package in NEEDED.get(name, ()):
        pytest.importorskip(package)
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    cell = parameters(notebook)
    assert names(cell.source) == names(PARAMETERS[name])
    cell.source = PARAMETERS[name]
    module(ROOT / "scripts" / "notebooks.py").run(notebook, tmp_path, EXAMPLES)
    assert outputs(notebook)
    assert all(each.output_type != "error" for each in outputs(notebook))


SEARCH = "import metaloss\nresult = metaloss.evolve(reporter=metaloss.Console(verbose=True), **{})"
FOUND = {
    "generations": "len(result.history)",
    "chosen": "result.summary['choice']['generation']",
    "value": "result.best(__import__('torch').zeros(2, 10), "
    "__import__('torch').tensor([3, 4])).isfinite().item()",
}


@pytest.mark.filterwarnings("ignore")  # those of Jupyter's own packages
def test_stop_in_a_kernel_gives_the_winner_so_far_and_progress_shows_in_the_cell(tmp_path):
    from jupyter_client.manager import start_new_kernel

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path / ".ipython")}
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path), env=environment)
    messages = []
    pressed = []

    def seen(message):
        messages.append((message["msg_type"], message["content"]))
        line = message["content"].get("text", "").split()
        if message["msg_type"] == "stream" and line[:1] == ["2"] and not pressed:
            pressed.append(True)
            manager.interrupt_kernel()

    try:
        code = SEARCH.format(repr(TINY | NETWORK | {"generations": 1_000_000}))
        reply = client.execute_interactive(
            code, user_expressions=FOUND, output_hook=seen, timeout=300
        )["content"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert pressed
    assert reply["status"] == "ok", reply
    found = {name: each["data"]["text/plain"] for name, each in reply["user_expressions"].items()}
    assert 2 <= int(found["generations"]) == int(found["chosen"]) < 1_000_000
    assert found["value"] == "True"
    said = "".join(content["text"] for kind, content in messages if kind == "stream")
    assert f"stopped after generation {found['chosen']}" in said
    assert "winner  " in said
    bars = [
        content["data"]
        for kind, content in messages
        if kind in ("display_data", "update_display_data")
    ]
    assert "<progress" in bars[0]["text/html"]
    assert bars[-1]["text/plain"] == f"generation {found['chosen']}/1000000"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_small_and_of_no_one_s_machine(name):
    path = NOTEBOOKS[name]
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # Run once, in order.
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs(notebook)
    assert all(each.output_type != "error" for each in outputs(notebook))
    assert len(path.read_bytes()) < LIMIT
    assert not [found for each in outputs(notebook) if (found := MACHINE.search(shown(each)))]


def shown(output):
    """What an output says; pictures say nothing."""
    data = {
        kind: value
        for kind, value in output.get("data", {}).items()
        if not kind.startswith("image/")
    }
    return f"{output.get('text', '')} {data}"


# --- learn2learn's tasks, of which no more is needed here than that they are pairs ---

tasksets = module(EXAMPLES / "learn2learn" / "tasksets.py") if EXAMPLES.is_dir() else None


def pairs(number=3, ways=3, each=5):
    """Tasks as learn2learn gives them: shuffled, each class's images around a value of its own."""
    for i in range(number):
        y = torch.arange(ways).repeat(each)[Stream(i).at("order").permutation(ways * each)]
        yield y[:, None, None, None] + 0.1 * Stream(i).at("images").normal(ways * each, 1, 4, 4), y


def test_a_task_is_cut_into_as_many_images_of_every_class():
    (x, y) = next(pairs())
    (train, label), (val, more) = tasksets.halves((x, y), 2)
    assert label.tolist() == [0, 0, 1, 1, 2, 2]
    assert more.bincount().tolist() == [3, 3, 3]
    assert sorted(torch.cat([train, val]).flatten().tolist()) == sorted(x.flatten().tolist())
    assert train.mean((1, 2, 3)).round().tolist() == label.tolist()


@pytest.mark.parametrize(
    ("labels", "shots"), [([0, 0, 1], 1), ([0, 0, 2, 2], 1), ([0, 0, 1, 1], 2)]
)
def test_a_task_that_cannot_be_cut_is_refused(labels, shots):
    with pytest.raises(ValueError, match="equally many images"):
        tasksets.halves((torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels)), shots)


def test_the_engine_scores_tasks_of_learn2learn():
    settings = {"classifier": {"kind": "mlp", "hidden": [8]}, "inner": {"steps": 40, "lr": 0.3}}
    episodes, tasks = tasksets.from_learn2learn(pairs(), 2, **settings)
    for (x, y), images, label in zip(pairs(), tasks.val.x(), tasks.val.label, strict=True):
        (_, (val, more)) = tasksets.halves((x, y), 2)
        assert torch.equal(images, val)
        assert torch.equal(label, more)
    with Local(workers=1) as engine:
        keys = [Stream(0).at("init", t) for t in range(len(tasks))]
        score = engine.score(metaloss.load("ce").losses(), episodes, tasks, keys)
    assert score.shape == (1, 3)
    assert float(score.mean()) > 0.8
