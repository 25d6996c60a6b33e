"""Compiled code is kept in the user's folder, never beside the sources, and never outlives them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaloss import kernels
from metaloss.cli import doctor
from metaloss.kernels import cache

pytest.importorskip("numba")

FILES = ("__init__", "_version", "kernels/__init__", "kernels/cache", "kernels/jit")
LOOPS = {
    "inner": "@compiled\ndef double(x):\n    return 2 * x\n",
    "outer": "from metaloss.kernels.inner import double\n\n\n"
    "@compiled\ndef value(x):\n    return double(x) + 1\n",
}
CALL = (
    "from metaloss.kernels.outer import value; "
    "print(value({x}), sum(value.stats.cache_hits.values()))"
)


@pytest.fixture
def package(tmp_path):
    """A copy of the package with two small loops, one of which calls the other's file."""
    root = tmp_path / "package" / "metaloss"
    for name in FILES:
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(kernels.__file__).parent.parent / f"{name}.py", path)
    for name, text in LOOPS.items():
        path = root / "kernels" / f"{name}.py"
        path.write_text(f"from metaloss.kernels.jit import compiled\n\n\n{text}")
    return root


def start(package, x=3, folder="kept"):
    """A process that calls the outer loop: its result, and whether its code was there."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(package.parent),
        "METALOSS_CACHE": str(package.parent / folder),
    }
    command = [sys.executable, "-c", CALL.format(x=x)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=package.parent, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def result(process):
    printed, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    return printed.strip()


def kept(package):
    return sorted((package.parent / "kept").rglob("*.nb?"))


def test_code_is_kept_in_the_chosen_folder_and_damaged_code_is_made_anew(package):
    assert result(start(package)) == "7 0"
    assert len(kept(package)) == 4  # two loops, each a list and one file
    assert not list(package.rglob("*.nb?"))
    for path in kept(package):
        path.write_bytes(path.read_bytes()[:-9])
    assert result(start(package)) == "7 0"
    assert result(start(package)) == "7 1"


def test_a_change_of_any_source_file_is_a_change_of_the_code(package):
    assert result(start(package)) == "7 0"
    path = package / "kernels" / "inner.py"
    path.write_text(path.read_text().replace("2 * x", "5 * x"))
    assert result(start(package)) == "16 0"


def test_where_no_folder_can_be_written_loops_are_compiled_all_the_same(package):
    (package.parent / "file").touch()
    assert result(start(package, folder="file/below")) == "7 0"


def test_two_processes_at_once_do_not_mix_their_code(package):
    at_once = [start(package, x) for x in (3, 1.5)]
    assert [result(process) for process in at_once] == ["7 0", "4.0 0"]
    assert [result(start(package, x)) for x in (3, 1.5)] == ["7 1", "4.0 1"]


# --- the folder ---


@pytest.fixture
def entries(tmp_path):
    """Makes entries of so many bytes, used one after another."""

    def make(*sizes):
        made = [tmp_path / f"{number:032x}" for number in range(len(sizes))]
        for age, (path, n) in enumerate(zip(made, sizes, strict=True)):
            path.mkdir()
            (path / "code").write_bytes(b"x" * n)
            os.utime(path, (age, age))
        return made

    return make


def left(made):
    return [number for number, path in enumerate(made) if path.exists()]


def test_what_was_used_longest_ago_makes_room(entries, tmp_path):
    made = entries(1, 1, 1, 1)
    cache.make_room(tmp_path, made[1], entries=2)
    assert left(made) == [1, 3]


def test_all_entries_together_have_so_many_bytes(entries, tmp_path):
    made = entries(10, 10, 10, 10)
    cache.make_room(tmp_path, made[0], limit=25)
    assert left(made) == [0, 3]


def test_an_entry_that_is_too_large_alone_is_emptied(entries, tmp_path):
    made = entries(10, 100)
    cache.make_room(tmp_path, made[1], limit=50)
    assert left(made) == [0, 1]
    assert not list(made[1].iterdir())


def test_nothing_but_entries_is_removed(entries, tmp_path):
    others = [tmp_path / "notes.txt", tmp_path / ("0" * 31), tmp_path / "0123"]
    for path in others:
        path.mkdir()
    made = entries(1, 1)
    cache.make_room(tmp_path, made[0], entries=1)
    assert left(made) == [0]
    assert all(path.exists() for path in others)


def test_the_cache_is_filled_once_something_was_compiled_and_not_before(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "entry", lambda: tmp_path)
    assert not cache.is_filled()
    (tmp_path / "inner.value.nbi").touch()
    assert cache.is_filled()
    assert cache.is_filled("inner")
    assert not cache.is_filled("outer")

    def unusable():
        raise cache.Unusable("there is no home folder")

    monkeypatch.setattr(cache, "entry", unusable)
    assert not cache.is_filled()


def test_the_folder_is_the_users_cache_unless_another_is_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("METALOSS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder() == tmp_path / ".cache" / "metaloss" / "compiled"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache.folder() == tmp_path / "shared" / "metaloss" / "compiled"
    monkeypatch.setenv("METALOSS_CACHE", "~/mine")
    assert cache.folder() == tmp_path / "mine" / "compiled"


@pytest.mark.parametrize("change", ["name", "text", "version"])
def test_the_digest_is_of_all_files_and_versions(tmp_path, change):
    one = tmp_path / "one.py"
    other = tmp_path / "other.py"
    one.write_text("1")
    other.write_text("2")
    before = cache.digest([one, other], ["3"])
    assert cache.digest([other, one], ["3"]) == before
    if change == "name":
        other = other.rename(tmp_path / "third.py")
    if change == "text":
        other.write_text("22")
    assert cache.digest([one, other], ["4" if change == "version" else "3"]) != before


def doctors(monkeypatch, folder):
    monkeypatch.setenv("METALOSS_CACHE", str(folder))
    cache.entry.cache_clear()
    try:
        return doctor._compiled_code()
    finally:
        cache.entry.cache_clear()


def test_the_doctor_says_where_code_is_kept_and_what_to_do_where_it_cannot_be(
    monkeypatch, tmp_path
):
    assert doctors(monkeypatch, tmp_path / "here") == doctor.CheckResult(
        "compiled code", f"{tmp_path / 'here' / 'compiled'}, 0.0 MB"
    )
    (tmp_path / "file").touch()
    finding = doctors(monkeypatch, tmp_path / "file")
    assert (
        finding.found
        == f"not kept: {tmp_path / 'file' / 'compiled'} cannot be written: Not a directory"
    )
    assert finding.advice.startswith("set METALOSS_CACHE to a folder")
    assert not finding.fatal
