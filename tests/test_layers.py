"""Packages import only from those before them, no modules in a circle, and start-up stays light."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import metaloss

ROOT = Path(metaloss.__file__).parent
# A package, or a module beside them, imports only from those before it.
ORDER = (
    "errors",
    "_version",
    "kernels",
    "core",
    "storage",
    "losses",
    "data",
    "inner",
    "genomes",
    "strategies",
    "criterion",
    "training",
    "tasks",
    "evolution",
    "engines",
    "evaluation",
    "search",
    "experiments",
    "console",
    "cli",
    "__main__",
    "_families",
)
PLACE = {unit: number for number, unit in enumerate(ORDER)}
STRATEGIES_MAY = {"core", "errors", "strategies"}
EXEMPT = "__init__"  # of the package itself: it looks its few public names up on first use
HEAVY = ("numba", "torchvision", "lightning", "matplotlib.pyplot", "scipy.stats", "sympy")


def modules(root):
    """Every module of a package by its dotted name without the package's own, and its file."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)] = path
    return found


def imports(name, path, known, package):
    """The modules of the package that this one imports anywhere, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = [package, *name.split(".")]
            within = here if path.name == "__init__.py" else here[:-1]
            base = within[: len(within) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import x`: x is a module, or a name within the package's own module.
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    own = {x.removeprefix(f"{package}.") for x in found if x.startswith(f"{package}.")}
    return {target for x in own if (target := _module(x, known))} - {name}


def _module(dotted, known):
    """The module of a dotted name; of an unknown one its first part, so that a test shows it."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        if (name := ".".join(parts[:n])) in known:
            return name
    return None


def graph(root):
    known = modules(root)
    return {
        name: imports(name, path, known, root.name)
        for name, path in known.items()
        if name != EXEMPT
    }


def unit(module):
    return module.split(".")[0]


def violations(root):
    """What breaks the order, in words."""
    found = graph(root)
    wrong = []
    wrong += [f"{name} has no place in the order" for name in found if unit(name) not in PLACE]
    for name, targets in found.items():
        for target in sorted(targets - {EXEMPT}):
            if PLACE.get(unit(name), 99) < PLACE.get(unit(target), 99):
                wrong.append(f"{name} imports {target}, which lies above it")
            if unit(name) == "strategies" and unit(target) not in STRATEGIES_MAY:
                wrong.append(f"strategy {name} imports {target}")
    try:
        graphlib.TopologicalSorter(found).prepare()
    except graphlib.CycleError as error:
        wrong.append("a circle: " + " imports ".join(reversed(error.args[1])))
    return wrong


def test_packages_import_only_from_those_before_them_and_no_modules_in_a_circle():
    assert violations(ROOT) == []


def test_the_graph_is_that_of_the_whole_package():
    found = graph(ROOT)
    assert {
        "core.streams",
        "losses.base",
        "strategies",
        "strategies.mu_plus_lambda",
        "engines.local",
        "cli",
    } <= found.keys()
    assert {"inner.loop", "inner.observers", "strategies", "core.streams"} <= found["evolution"]
    assert found["core.streams"] == set()
    assert "search.program" in found["cli.searches"], "imports within functions count"


@pytest.fixture
def package(tmp_path):
    """Writes a small package and gives its folder."""

    def write(**files):
        root = tmp_path / "metaloss"
        for name, text in {"__init__": "", **files}.items():
            path = root / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return write


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"novel": ""}, "novel has no place in the order"),
        (
            {"errors": "from metaloss.cli import main", "cli": ""},
            "errors imports cli, which lies above it",
        ),
        (
            {"errors": "from metaloss import cli", "cli": ""},
            "errors imports cli, which lies above it",
        ),
        (
            {"errors": "def f():\n    import metaloss.cli", "cli": ""},
            "errors imports cli, which lies above it",
        ),
        ({"errors": "from . import cli", "cli": ""}, "errors imports cli, which lies above it"),
        ({"errors": "from .cli import main", "cli": ""}, "errors imports cli, which lies above it"),
        (
            {"genomes__in____init__": "", "genomes__in__tree": "from ..cli import main", "cli": ""},
            "genomes.tree imports cli, which lies above it",
        ),
        (
            {
                "strategies__in____init__": "",
                "strategies__in__x": "from metaloss.losses.base import y",
                "losses": "",
            },
            "strategy strategies.x imports losses",
        ),
        (
            {
                "search__in____init__": "",
                "search__in__a": "import metaloss.search.b",
                "search__in__b": "from metaloss.search.a import x",
            },
            "a circle: ",
        ),
    ],
    ids=[
        "unknown",
        "up",
        "from",
        "within",
        "relative",
        "relative name",
        "relative up",
        "strategy",
        "circle",
    ],
)
def test_what_breaks_the_order_is_found(package, files, found):
    wrong = violations(package(**files))
    assert len(wrong) == 1
    assert wrong[0].startswith(found)


def test_imports_that_keep_the_order_are_fine(package):
    root = package(
        core__in____init__="",
        core__in__streams="import torch",
        losses="from metaloss.core.streams import Stream",
        strategies__in____init__="from metaloss.core.population import Population",
        strategies__in__x="from metaloss.strategies import Strategy",
        core__in__population="",
        search="from metaloss import losses, __version__",
    )
    assert violations(root) == []


# --- what start-up imports ---


def loaded(code):
    """Which of the heavy modules, and torch, are there after this code."""
    watched = (*HEAVY, "torch")
    after = f"{code}\nimport sys; print('loaded:', *[m for m in {watched!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", after], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    return done.stdout, done.stdout.splitlines()[-1].split()[1:]


def test_importing_the_package_imports_neither_torch_nor_anything_else_that_is_slow():
    assert loaded("import metaloss; dir(metaloss)")[1] == []


HELP = """
import runpy, sys
sys.argv = ["metaloss", {args}]
try:
    runpy.run_module("metaloss", run_name="__main__")
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize("args", ['"--help"', '"evolve", "--help"', '"--version"', '"list", "-h"'])
def test_help_imports_neither_torch_nor_anything_else_that_is_slow(args):
    printed, found = loaded(HELP.format(args=args))
    assert "metaloss" in printed
    assert found == []


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'metaloss' has no attribute 'evolv'"):
        _ = metaloss.evolv
