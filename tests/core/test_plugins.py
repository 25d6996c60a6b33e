"""Parts of the user's own folders and of other packages stand beside the package's own."""

import json
import os
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from fuzzing import watched

import metaloss
from metaloss.core import plugins, registry
from metaloss.data import datasets
from metaloss.errors import SettingsError

EXAMPLES = Path(metaloss.__file__).parent.parent / "docs" / "examples"
PLACES = {"genomes": "series", "strategies": "hill_climber", "datasets": "photos"}
needs_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the examples lie in the checkout"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An own folder that is searched.

    A mapping from genomes' names to their files' texts fills it.
    """
    root = tmp_path / "mine"
    (root / "genomes").mkdir(parents=True)
    monkeypatch.setenv("METALOSS_PLUGINS", str(root))

    def fill(**files):
        for name, text in files.items():
            (root / "genomes" / f"{name}.py").write_text(text)
        return root

    return fill


def error(call, *given):
    with pytest.raises(SettingsError) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@needs_examples
def test_files_of_a_folder_are_parts_like_the_packages_own(folder):
    root = folder()
    for kind, name in PLACES.items():
        (root / kind).mkdir(exist_ok=True)
        shutil.copy(EXAMPLES / f"{name}.py", root / kind)
    genome = registry.build("genomes", {"kind": "series", "terms": 2})
    assert (genome.terms, registry.kind(genome)) == (2, "series")
    assert registry.build("genomes", {"kind": "series", "terms": 2}) == genome
    assert {"series", "mln"} <= set(registry.names("genomes"))
    assert "hill_climber" in registry.names("strategies")
    assert "photos" in datasets.names()


def test_what_begins_with_an_underscore_or_is_no_file_is_no_part_and_looking_opens_nothing(folder):
    root = folder(_shared="", one="", **{"not a name": ""})
    (root / "genomes" / "__pycache__").mkdir()
    registry.names("genomes")
    with watched() as heard:
        assert set(registry.names("genomes")) - set(registry.builtin_names("genomes")) == {"one"}
    assert set(heard) <= {
        ("os.listdir", str(place / "genomes")) for place in (root, Path(metaloss.__file__).parent)
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "x = 1\n\n\ndef f():\n    return 1 / 0\n\n\nf()\n",
            "bad.py:5: ZeroDivisionError: division by zero",
        ),
        ("x = (\n", "bad.py:1: SyntaxError: '(' was never closed"),
        (
            "import nothing_of_this_name\n",
            "bad.py:1: ModuleNotFoundError: No module named 'nothing_of_this_name'",
        ),
        (
            "class Bad: ...\n",
            "bad.py: __all__ must hold one name, the class of the part; it has none",
        ),
        (
            "__all__ = ['A', 'B']\n",
            "bad.py: __all__ must hold one name, the class of the part; got ['A', 'B']",
        ),
        (
            "__all__ = ['A']\n",
            "bad.py: __all__ must hold one name, the class of the part; got ['A']",
        ),
        ("__all__ = ['f']\n\n\ndef f(): ...\n", "bad.py: a part is a class, got <function f"),
        (
            "__all__ = ['A']\n\n\nclass A:\n    vector = True\n",
            "bad.py: A has no classes, crossover, describe, ",
        ),
    ],
    ids=["raises", "syntax", "import", "no __all__", "two", "absent", "function", "lacks"],
)
def test_a_plugin_that_does_not_work_is_one_line_with_file_and_line(folder, text, line):
    root = folder(bad=text)
    assert error(registry.build, "genomes", {"kind": "bad"}).startswith(f"{root}/genomes/{line}")


def test_two_parts_of_one_name_are_refused_with_both_places(folder, tmp_path, monkeypatch):
    root = folder(tree="")
    mine = root / "genomes" / "tree.py"
    assert error(registry.names, "genomes").startswith(
        f"two parts have the name 'genomes/tree': metaloss itself and {mine}"
    )
    mine.rename(mine.with_name("oak.py"))
    other = tmp_path / "other" / "genomes"
    other.mkdir(parents=True)
    (other / "oak.py").touch()
    monkeypatch.setenv("METALOSS_PLUGINS", f"{root}{os.pathsep}{other.parent}")
    assert f"{root}/genomes/oak.py and {other}/oak.py" in error(registry.names, "genomes")


def test_a_folder_that_holds_no_parts_is_refused(metaloss, tmp_path):
    code, _, errors = metaloss("list", "genomes", "--plugins", str(tmp_path))
    assert (code, errors) == (
        2,
        f"error: plugins: {tmp_path} holds none of "
        "genomes/, strategies/, classifiers/, metrics/, datasets/\n",
    )
    assert metaloss("list", "genomes", "--plugins", str(tmp_path / "no"))[2].endswith(
        "no is no folder\n"
    )
    assert plugins.VARIABLE not in os.environ


def test_the_list_shows_plugins_with_their_origin_and_broken_ones_too(folder, metaloss):
    root = folder(fine='"""Curves."""\n', broken='"""Curves.\n')
    code, out, _ = metaloss("list", "genomes", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["fine"] == {
        "name": "fine",
        "about": f"Curves.  ({root}/genomes/fine.py)",
        "origin": f"{root}/genomes/fine.py",
    }
    assert rows["broken"]["about"].startswith("cannot be read: unterminated")
    assert "origin" not in rows["mln"]


def test_another_package_announces_its_parts_by_entry_points(monkeypatch):
    values = {"elm": "metaloss.genomes.tree:Tree", "ash": "metaloss.genomes.graph"}
    entries = tuple(EntryPoint(name, value, "metaloss.genomes") for name, value in values.items())
    monkeypatch.setattr(plugins, "_entries", lambda kind: entries if kind == "genomes" else ())
    monkeypatch.setattr(registry, "_PLUGINS", {})
    elm, ash = (registry.build("genomes", {"kind": kind}) for kind in ("elm", "ash"))
    assert (type(elm).__name__, type(ash).__name__) == ("Tree", "Graph")
    assert [registry.kind(genome) for genome in (elm, ash)] == ["elm", "ash"]
    (version,) = plugins.versions([("genomes", "elm"), ("genomes", "mln")]).values()
    assert version.startswith("tree.py sha256 ")


def test_a_run_records_its_plugins_and_says_which_is_missing(
    folder, monkeypatch, tmp_path, metaloss
):
    root = folder()
    (root / "strategies").mkdir()
    path = root / "strategies" / "own.py"
    path.write_text(
        "from metaloss.strategies.random_search import RandomSearch\n\n\n__all__ = ['Own']\n\n\n"
        "class Own(RandomSearch):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("METALOSS_PLUGINS")
    monkeypatch.setattr("metaloss.search.settings.PRESETS", {"quick": TINY})
    run = ("evolve", "--tasks", "fashionmnist", "--strategy", "own", "-q", "--plugins", "mine")
    assert metaloss(*run)[0] == 0
    (folder_,) = (tmp_path / "runs").iterdir()
    conditions = json.loads((folder_ / "provenance.json").read_text())["conditions"]
    assert conditions["plugin strategies/own"].startswith("own.py sha256 ")
    again = ("evolve", "--resume", folder_.name, "--generations", "2", "-q")
    code, _, errors = metaloss(*again)
    assert code == 2
    assert "It was the plugin strategies/own, own.py sha256 " in errors
    assert errors.count("\n") == 1
    path.write_text(path.read_text() + "# changed\n")
    code, _, errors = metaloss(*again, "--plugins", "mine")
    assert code == 2
    assert "plugin strategies/own: was own.py sha256 " in errors
    assert metaloss(*again, "--plugins", "mine", "--allow-changes")[0] == 0


TINY = {
    "generations": 1,
    "validation": 2,
    "tasks_per_generation": 1,
    "baseline_tasks": 2,
    "winner_tasks": 2,
    "test_tasks": 2,
    "rates": (0.1,),
    "genome": {"kind": "mln", "features": 2, "hidden": 2},
}
