"""The folder is the registry, and one line says what is wrong with a name or a setting."""

import subprocess
import sys

import pytest
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from metaloss.core import plugins, registry
from metaloss.errors import SettingsError

PARTS = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Inner:
    rate: float = Field(default=0.1, gt=0)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Outer:
    width: int
    inner: Inner = Inner()
    part: dict[str, int] | None = None


def error(call, *given):
    with pytest.raises(SettingsError) as caught:
        call(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_the_names_of_a_kind_are_its_public_files(kind):
    files = plugins.builtin_folder(kind).glob("*.py")
    assert registry.names(kind) == sorted(f.stem for f in files if not f.stem.startswith("_"))


def test_looking_up_names_imports_none_of_them():
    code = (
        "import sys; from metaloss.core import registry; [registry.names(k) for k in "
        "registry.KINDS]; "
        "print([m for m in sys.modules if m.startswith(('torch', 'metaloss.genomes'))])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_file_exports_one_part_that_can_be_built_without_settings(kind, name):
    part = registry.part(kind, name)
    assert sys.modules[part.__module__].__all__ == [part.__name__]
    assert part.__doc__
    built = registry.build(kind, {"kind": name})
    assert isinstance(built, part)
    assert built == registry.build(kind, {"kind": name})


@pytest.mark.parametrize(("kind", "name"), PARTS)
def test_a_part_refuses_a_setting_it_does_not_have(kind, name):
    assert error(registry.build, kind, {"kind": name, "nonsense": 1}, "here").startswith(
        "here: unknown setting 'nonsense'."
    )


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("genomes", "mnl", "unknown genome 'mnl'. Did you mean 'mln'?  (metaloss list genomes)"),
        ("strategies", "openai-es", "unknown strategy 'openai-es'. Did you mean 'openai_es'?"),
        ("classifiers", "CNN", "unknown classifier 'CNN'. Did you mean 'cnn'?"),
        ("classifiers", "transformer", "unknown classifier 'transformer'. Known: cnn, linear, "),
        ("classifiers", "__init__", "unknown classifier '__init__'."),
        ("genomes", "_networks", "unknown genome '_networks'."),
    ],
)
def test_an_unknown_name_gets_the_nearest_one_or_all(kind, name, line):
    assert error(registry.build, kind, {"kind": name}, registry.KINDS[kind]).startswith(line)


def test_settings_are_taken_from_the_table():
    assert registry.build("classifiers", {"kind": "mlp", "hidden": [3, 4]}).hidden == (3, 4)


@pytest.mark.parametrize(
    ("table", "line"),
    [
        ({"widht": 1}, "here: unknown setting 'widht'. Did you mean 'width'?"),
        ({}, "here: width: Field required"),
        ({"width": "many"}, "here: width: Input should be a valid integer"),
        ({"width": 1.5}, "here: width: Input should be a valid integer"),
        (
            {"width": 1, "part": "mlp"},
            "here: part: Input should be a table, as part.kind=mlp, got 'mlp'",
        ),
        ({"width": 1, "part": 2}, "here: part: Input should be a table, got 2"),
        (
            {"width": 1, "inner": {"rate": -2.0}},
            "here: inner.rate: Input should be greater than 0, got -2.0",
        ),
    ],
)
def test_one_line_names_place_setting_and_what_was_given(table, line):
    assert error(registry.from_table, Outer, table, "here").startswith(line)


def test_a_table_without_a_kind_is_refused_with_the_kinds_there_are():
    assert "mlp" in error(registry.build, "classifiers", {"hidden": [3]}, "here")


def test_settings_of_a_part_cannot_be_changed():
    for kind, name in PARTS:
        part = registry.build(kind, {"kind": name})
        field = next(iter(type(part).__dataclass_fields__), "new")
        with pytest.raises(AttributeError):
            setattr(part, field, 1)
