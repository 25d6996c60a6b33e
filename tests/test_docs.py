"""The manual builds without a warning, names every part, has no dead link, and its code runs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from test_layers import ORDER
from test_run_folder import SMALL, family, only_the_subset, without_plots

import metaloss
from metaloss.cli import cli
from metaloss.core import registry
from metaloss.data import datasets
from metaloss.losses.zoo_entries import ENTRIES
from metaloss.search import settings
from metaloss.training.settings import Augment, Training

ROOT = Path(metaloss.__file__).parent.parent
PACKAGE, DOCS = ROOT / "metaloss", ROOT / "docs"
DRAWN = ("ce", "focal")  # phenotypes that the tests draw: all of them take a while
pytestmark = pytest.mark.skipif(
    not (DOCS / "conf.py").is_file(), reason="the manual lives in the checkout"
)

PAGES = {
    str(path.relative_to(DOCS).with_suffix("")): path.read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md")
}
README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else ""
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Page(HTMLParser):
    """A page's anchors, what it links to and what a browser would load for it."""

    def __init__(self, text):
        super().__init__()
        self.anchors = {"", "top"}
        self.links = []
        self.loads = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note one."""
        found = dict(attrs)
        self.anchors |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.append(found["href"])
        if tag in ("img", "script", "iframe") and found.get("src"):
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    for name in ("sphinx", "myst_parser", "furo", "sphinx_click"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    # A process of its own: here every annotation is wrapped, and signatures would show it.
    pictures = ["-D", f"zoo_pictures={','.join(DRAWN)}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, *pictures, DOCS, out],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    """The text of every page of the built site."""
    return {
        path.relative_to(site): path.read_text(encoding="utf-8") for path in site.rglob("*.html")
    }


def test_every_page_is_in_a_table_of_contents():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", PAGES["index"], re.DOTALL | re.MULTILINE)
    listed = [
        line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")
    ]
    assert sorted([*listed, "index"]) == sorted(PAGES)


def test_every_figure_of_the_readme_stands_in_the_manual():
    manual = "\n".join(PAGES.values())
    figures = re.findall(r"[+-]\d+\.\d+|\d+\.\d+ %|\d+ of \d+", README)
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in manual] == []


def test_every_link_of_the_readme_leads_to_a_file_and_its_heading():
    for parts in map(urlsplit, re.findall(r"\]\(([^)]+)\)", README)):
        if parts.scheme:
            continue
        path = ROOT / parts.path
        assert path.is_file(), parts
        if parts.fragment:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings]
            assert parts.fragment in anchors, parts


def test_the_architecture_names_files_that_are_there_and_packages_in_their_order():
    text = PAGES["architecture"]
    named = re.findall(r"`((?:\w+/)*\w+(?:\.py|/))`", text)
    missing = [x for x in named if not (ROOT / x).exists() and not (PACKAGE / x).exists()]
    assert len(named) > 40
    assert missing == []
    rows = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", text, re.MULTILINE)
    assert rows == [unit for unit in ORDER if not unit.startswith("_")]


def test_every_published_loss_is_in_the_gallery(site, pages):
    text = pages[Path("zoo.html")]
    for name, entry in ENTRIES.items():
        assert f"<h2>{name}<" in text
        assert (site / "_zoo" / f"{name}.svg").is_file() == (not entry.unavailable)
        assert (site / "_zoo" / f"{name}.png").is_file() == (name in DRAWN)


def test_everything_there_is_has_a_place_in_the_reference(pages):
    parts, api, commands = (pages[Path(f"{name}.html")] for name in ("parts", "api", "cli"))
    for kind in registry.KINDS:
        assert all(f"<h3>{name}<" in parts for name in registry.names(kind))
    assert all(f">{name}</span>" in parts for name in datasets.names())
    modules = [name for name in metaloss.__all__ if isinstance(getattr(metaloss, name), ModuleType)]
    assert all(f'id="metaloss.{name}' in api for name in modules)
    assert all(
        f'id="metaloss.{name}"' in api for name in {*metaloss.__all__} - {*modules, "__version__"}
    )
    assert all(f'id="metaloss-{name}"' in commands for name in cli.commands)
    fields = (
        *settings.Settings.model_fields,
        *Training.__dataclass_fields__,
        *Augment.__dataclass_fields__,
    )
    assert all(f">{name}</span>" in pages[Path("settings.html")] for name in fields)


def test_no_page_tells_where_it_was_made(site, pages):
    for name, text in pages.items():
        for folder in (ROOT, site, Path.home()):
            assert len(folder.parts) == 1 or f"{folder}/" not in text, name


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site, pages):
    read = {site / name: Page(text) for name, text in pages.items()}
    for path, page in read.items():
        for address in page.loads:
            assert not urlsplit(address).netloc, address
            assert (path.parent / unquote(urlsplit(address).path)).is_file(), address
        for parts in map(urlsplit, page.links):
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path, parts)
            if target in read:
                assert unquote(parts.fragment) in read[target].anchors, (path, parts)


def imported(code):
    """What code imports of metaloss: pairs of a module and a name, "" for the module itself."""
    pairs = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            pairs |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            pairs |= {(node.module or "", alias.name) for alias in node.names}
    return {pair for pair in pairs if pair[0].split(".")[0] == "metaloss"}


def test_the_manual_imports_public_names_alone():
    pieces = {name: "\n".join(BLOCK.findall(text)) for name, text in PAGES.items()}
    pieces |= {
        path.name: path.read_text(encoding="utf-8") for path in (DOCS / "examples").glob("*.py")
    }
    public = {("metaloss", name) for name in metaloss.__all__} | {("metaloss", "")}
    public |= {
        ("metaloss.errors", name)
        for name in vars(metaloss.errors)
        if name.endswith(("Error", "Warning"))
    }
    assert {
        name: private for name, code in pieces.items() if (private := imported(code) - public)
    } == {}
    assert sum(map(len, map(imported, pieces.values()))) > 10


@pytest.fixture
def examples(monkeypatch, tmp_path):
    """The manual's examples in a folder of the user's own, beside the one to work in."""
    only_the_subset(monkeypatch, tmp_path)
    without_plots(monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(settings.PRESETS, "smoke", {**SMALL, "generations": 1, "rates": (0.1,)})
    monkeypatch.setattr("metaloss.tasks.step_counts.STEPS", (20,))
    for kind, name in {
        "strategies": "hill_climber",
        "genomes": "series",
        "datasets": "photos",
    }.items():
        place = tmp_path / "mine" / kind
        place.mkdir(parents=True)
        shutil.copy(DOCS / "examples" / f"{name}.py", place)
    monkeypatch.setenv("METALOSS_PLUGINS", "mine")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.mark.filterwarnings("ignore")  # skorch's, Lightning's, and those of what they import
@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if BLOCK.search(text)])
def test_the_code_of_a_page_runs_from_its_top_to_its_end(page, examples):
    code = "\n".join(BLOCK.findall(PAGES[page]))
    for name in re.findall(r"^(?:import|from) (skorch|lightning)", code, re.MULTILINE):
        pytest.importorskip(name)
    exec(compile(code, f"{page}.md", "exec"), {"__name__": page})


@pytest.mark.parametrize("genome", ["series", SMALL["genome"]], ids=["series", "mln"])
def test_the_examples_search_and_resume(genome, examples, tmp_path):
    climber = {"kind": "hill_climber", "children": 4}
    small = {**SMALL, "genome": genome, "strategy": climber, "generations": 1}
    first = metaloss.evolve(family(tmp_path), **small)
    whole = metaloss.evolve(family(tmp_path), **{**small, "generations": 2})
    assert metaloss.resume(first.folder, changes={"generations": 2}).history == whole.history


def test_the_example_of_a_data_source_reads_its_file(examples, monkeypatch, tmp_path):
    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    with pytest.raises(metaloss.errors.DataError, match=r"photos\.npz"):
        datasets.load("photos")
    images = np.zeros((6, 1, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", images=images, label=np.arange(6) % 3)
    photos = datasets.load("photos")
    assert photos.classes == ("cat", "dog", "owl")
    assert tuple(photos.pixels.shape) == (6, 1, 4, 4)
