"""Install lines work however metaloss was installed, and none asks an index for metaloss."""

import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import metaloss
from metaloss.core import installation

ROOT = Path(metaloss.__file__).parent
EXTRAS = (
    'lightning>=2.6; extra == "train"',
    'ipykernel>=6; extra == "notebooks"',
    "x>=1 ; extra == 'notebooks'",
)


def test_an_extra_is_installed_by_its_packages_names(monkeypatch):
    monkeypatch.setattr(installation, "requires", lambda name: ["torch>=2.11", *EXTRAS])
    assert installation.command("train") == "pip install 'lightning>=2.6'"
    assert installation.command("notebooks") == "pip install 'ipykernel>=6' 'x>=1'"


def test_where_nothing_is_installed_the_checkout_is(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(installation, "requires", missing)
    assert installation.command("train") == "pip install '.[train]' in the checkout"


@pytest.mark.parametrize("folder", ["metaloss", "docs", "examples", "README.md"])
def test_nothing_tells_to_install_metaloss_from_an_index(folder):
    place = ROOT.parent / folder
    paths = [place] if place.is_file() else place.rglob("*")
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in paths
        if path.suffix in (".py", ".md", ".ipynb")
    }
    assert [
        path
        for path, text in texts.items()
        if re.search(r"pip install (-\S+ )*['\"]?metaloss", text)
    ] == []
