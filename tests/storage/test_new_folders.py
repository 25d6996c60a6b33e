"""A new folder is there whole, under its name, or not at all.

Whatever a kill leaves is removed by the next.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from metaloss.storage import creation, new_folder

FILES = {"config.toml": b"a = 1\n", "provenance.json": b"{}\n"}


class Killed(BaseException):
    pass


def killed_after(patch, steps):
    """The process is gone at its nth call of the disk.

    Nothing is done any more, not even to tidy up.
    """
    left = [steps]

    def guard(call):
        def guarded(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*args, **kwargs)

        return guarded

    for owner, name in (
        *((os, name) for name in ("open", "write", "fsync", "close")),
        *((Path, name) for name in ("replace", "chmod", "mkdir")),
        (tempfile, "mkdtemp"),
        (shutil, "rmtree"),
    ):
        patch.setattr(owner, name, guard(getattr(owner, name)))


def test_a_kill_at_any_step_leaves_the_whole_folder_or_none_and_the_next_has_the_first_free_name(
    tmp_path,
):
    names = set()
    for steps in range(60):
        parent = tmp_path / str(steps)
        with pytest.MonkeyPatch.context() as patch:
            killed_after(patch, steps)
            try:
                done = bool(new_folder(parent, "run", FILES, "run"))
            except Killed:
                done = False
        for descriptor in Path("/proc/self/fd").iterdir():  # as the kernel does when a process ends
            if descriptor.is_symlink() and str(descriptor.readlink()).startswith(str(parent)):
                os.close(int(descriptor.name))
        whole = (parent / "run").exists()
        assert not whole or {p.name: p.read_bytes() for p in (parent / "run").iterdir()} == FILES
        assert new_folder(parent, "run", FILES, "run").name == ("run-2" if whole else "run")
        assert sorted(p.name for p in parent.iterdir()) == ["run", *(["run-2"] if whole else [])]
        names.add(whole)
        if done:
            assert steps > 8
            assert names == {True, False}
            return
    raise AssertionError("it never came to its end")


def test_an_unfinished_folder_of_a_living_process_is_left_alone(tmp_path):
    with creation._unfinished(tmp_path) as folder:
        new_folder(tmp_path, "run", FILES, "run")
        assert folder.is_dir()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_whatever_has_the_name_keeps_it(tmp_path):
    (tmp_path / "run").write_text("mine")
    (tmp_path / "run-2").symlink_to("nowhere")
    (tmp_path / "run-3").mkdir()
    assert new_folder(tmp_path, "run", FILES, "run").name == "run-4"
    assert (tmp_path / "run").read_text() == "mine"
    assert not list((tmp_path / "run-3").iterdir())
