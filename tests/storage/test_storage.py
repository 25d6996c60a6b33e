import errno
import io
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import metaloss.storage
from metaloss.errors import DamagedFile, DiskError, RunInUse
from metaloss.storage import Checkpoints, History, Lock, commit, json_safe, recover, write

CALLS = [
    (io, "open"),
    *((os, name) for name in ("open", "write", "fsync", "replace", "mkdir", "unlink", "ftruncate")),
]


class PowerCut(BaseException):
    pass


class Disk:
    """Lets `sound` calls through.

    Then one call fails ("once"), all do ("full"), or the process is gone ("crash").
    """

    def __init__(self, sound: int, mode: str, reason: int = errno.ENOSPC) -> None:
        self.left = sound
        self.mode = mode
        self.reason = reason
        self.calls: list[str] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for module, name in CALLS:
            patch.setattr(module, name, self.guard(name, getattr(module, name)))

    def guard(self, name, call):
        def guarded(*args, **kwargs):
            self.left -= 1
            self.calls.append(name)
            if self.left >= 0 or (self.left < -1 and self.mode == "once"):
                return call(*args, **kwargs)
            if name == "write" and self.left == -1:
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise (
                PowerCut if self.mode == "crash" else OSError(self.reason, os.strerror(self.reason))
            )

        return guarded


def every_fault(tmp_path, start, action, mode):
    """A folder like `start` after `action` failed in it, for each call at which it can fail."""
    for sound in itertools.count():
        folder = tmp_path / f"{mode}{sound}"
        shutil.copytree(start, folder)
        try:
            with pytest.MonkeyPatch.context() as patch:
                Disk(sound, mode).install(patch)
                action(folder)
        except (DiskError, PowerCut):
            yield folder
        else:
            assert sound >= 3
            return


def record(generation):
    return {"generation": generation, "fitness": [0.1 * generation, 1 / 3]}


def payload(generation):
    return b"\n\x00state" + bytes([generation]) * 20


def run(folder, generations):
    folder.mkdir()
    for generation in range(1, generations + 1):
        commit(folder, generation, record(generation), payload(generation))
    return folder


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << position % 8
    path.write_bytes(data)


def assert_sound(folder, possible):
    """The folder recovers to one of the `possible` generations and takes the next commit."""
    found = recover(folder)
    generation = found.generation if found else 0
    assert generation in possible
    assert History(folder).read() == [record(g) for g in range(1, generation + 1)]
    if found:
        assert (found.payload, found.history_length) == (
            payload(generation),
            History(folder).length,
        )
    commit(folder, generation + 1, record(generation + 1), payload(generation + 1))
    assert recover(folder).payload == payload(generation + 1)
    assert not list((folder / "checkpoint").glob(".*"))


MODES = pytest.mark.parametrize("mode", ["once", "full", "crash"])


@MODES
@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_commit_that_fails_anywhere_loses_nothing(tmp_path, mode, before):
    def action(folder):
        commit(folder, before + 1, record(before + 1), payload(before + 1))

    for folder in every_fault(tmp_path, run(tmp_path / "start", before), action, mode):
        assert_sound(folder, {before, before + 1})


@MODES
def test_a_recovery_that_fails_anywhere_can_be_repeated(tmp_path, mode):
    start = run(tmp_path / "start", 3)
    flip(start / "checkpoint/state-000003.safetensors", -1)
    for folder in every_fault(tmp_path, start, recover, mode):
        assert_sound(folder, {2})


@MODES
def test_a_write_that_fails_leaves_the_old_or_the_new_content(tmp_path, mode):
    start = tmp_path / "start"
    start.mkdir()
    (start / "winner").write_bytes(b"old content")
    contents = []
    for folder in every_fault(
        tmp_path, start, lambda folder: write(folder / "winner", b"new"), mode
    ):
        contents.append((folder / "winner").read_bytes())
        assert mode != "once" or [path.name for path in folder.iterdir()] == ["winner"]
    # Open, write, fsync and replace leave the old; opening and syncing the folder come after the
    # rename.
    assert contents == 4 * [b"old content"] + 2 * [b"new"]


def test_each_step_of_a_commit_is_on_the_disk_before_the_next(tmp_path):
    folder = run(tmp_path / "run", 0)
    for generation in range(1, 5):
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(1000, "once")
            disk.install(patch)
            commit(folder, generation, record(generation), payload(generation))
        # The first one makes the file's name.
        history = "write fsync fsync" if generation == 1 else "write fsync"
        old = " unlink" if generation == 4 else ""
        log = " ".join(name for name in disk.calls if name != "open")
        assert log == f"{history} mkdir fsync write fsync replace fsync{old}"


def test_an_append_that_fails_adds_nothing(tmp_path):
    start = run(tmp_path / "start", 2)
    for folder in every_fault(
        tmp_path, start, lambda folder: History(folder).append(record(3)), "once"
    ):
        History(folder).append(record(9))
        assert History(folder).read() == [record(1), record(2), record(9)]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
        (errno.EIO, "error"),
    ],
)
def test_a_refusing_disk_is_one_line_with_path_and_reason(tmp_path, monkeypatch, reason, words):
    Disk(0, "full", reason).install(monkeypatch)
    for action in (lambda: write(tmp_path / "winner", b""), lambda: Lock(tmp_path).__enter__()):
        with pytest.raises(DiskError, match=f"{tmp_path}/.*: .*{words}") as caught:
            action()
        assert "\n" not in str(caught.value)


def test_a_disk_that_takes_one_byte_at_a_time_gets_them_all(tmp_path, monkeypatch):
    whole = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:1]))
    write(tmp_path / "winner", b"content")
    assert (tmp_path / "winner").read_bytes() == b"content"


def test_a_missing_parent_is_named(tmp_path):
    for action in (
        lambda p: write(p / "x", b""),
        lambda p: commit(p, 1, {}, b""),
        lambda p: Lock(p).__enter__(),
    ):
        with pytest.raises(DiskError, match=r"nowhere/.*: missing parent"):
            action(tmp_path / "nowhere")


def test_the_newest_three_states_are_kept(tmp_path):
    folder = run(tmp_path / "run", 5)
    assert sorted(path.name[6:12] for path in (folder / "checkpoint").iterdir()) == [
        "000003",
        "000004",
        "000005",
    ]


def test_generations_are_ordered_as_numbers(tmp_path):
    for generation in (999_999, 1_000_000):
        commit(tmp_path, generation, {}, b"")
    assert recover(tmp_path).generation == 1_000_000


def test_any_flipped_byte_of_a_state_is_named_and_the_previous_state_used(tmp_path):
    folder = run(tmp_path / "run", 3)
    newest = folder / "checkpoint/state-000003.safetensors"
    sound = newest.read_bytes()
    for position in range(len(sound)):
        flip(newest, position)
        found = Checkpoints(folder).newest(History(folder))
        assert (found.generation, found.payload) == (2, payload(2))
        assert [newest.name in warning for warning in found.warnings] == [True]
        newest.write_bytes(sound)
    assert Checkpoints(folder).newest(History(folder)).warnings == ()


@pytest.mark.parametrize("length", [0, 1, 200, -1])
def test_a_shortened_state_is_damaged(tmp_path, length):
    folder = run(tmp_path / "run", 2)
    newest = folder / "checkpoint/state-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:length])
    assert recover(folder).generation == 1


def test_a_state_under_another_name_is_damaged(tmp_path):
    folder = run(tmp_path / "run", 2)
    shutil.copy(
        folder / "checkpoint/state-000002.safetensors",
        folder / "checkpoint/state-000007.safetensors",
    )
    assert recover(folder).generation == 2


def test_any_flipped_byte_of_the_history_is_found(tmp_path):
    folder = run(tmp_path / "run", 4)
    sound = History(folder).path.read_bytes()
    # What the oldest state kept, the second, has seen.
    oldest = sum(len(line) + 1 for line in sound.split(b"\n")[:2])
    for position in range(0, len(sound), 3):
        flip(History(folder).path, position)
        if position < oldest:
            with pytest.raises(DamagedFile, match="history_sha256"):
                recover(folder)
        else:
            generation = 2 + sound[oldest:position].count(b"\n")
            assert recover(folder).generation == generation
            assert History(folder).read() == [record(g) for g in range(1, generation + 1)]
        History(folder).path.write_bytes(sound)


def test_when_all_states_are_damaged_nothing_is_changed(tmp_path):
    folder = run(tmp_path / "run", 3)
    for path in (folder / "checkpoint").iterdir():
        flip(path, -1)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(DamagedFile, match=r"000003.*000002.*000001"):
        recover(folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*.*")}


def test_a_history_whose_states_were_lost_is_not_thrown_away(tmp_path):
    folder = run(tmp_path / "run", 2)
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(DamagedFile, match="no state"):
        recover(folder)
    assert len(History(folder).read()) == 2


def test_a_half_written_last_line_is_left_out_and_cut_off_by_recovery(tmp_path):
    folder = run(tmp_path / "run", 2)
    length = History(folder).length
    with History(folder).path.open("ab") as file:
        file.write(b'{"generation":3,"fit')
    assert History(folder).read() == [record(1), record(2)]
    assert recover(folder).history_length == length == History(folder).length


def test_a_mended_file_goes_on_after_its_last_whole_line(tmp_path):
    history = History(tmp_path, "other.jsonl")
    history.mend()
    assert not list(tmp_path.iterdir()), "there is nothing to mend"
    for g in (1, 2):
        history.append(record(g))
    history.path.write_bytes(history.path.read_bytes()[:-5])
    history.mend()
    history.append(record(3))
    assert history.read() == [record(1), record(3)]


def test_a_damaged_line_is_named_by_its_number(tmp_path):
    folder = run(tmp_path / "run", 3)
    flip(History(folder).path, History(folder).length // 2)
    with pytest.raises(DamagedFile, match=r"history\.jsonl: line 2 is damaged"):
        History(folder).read()


def test_numbers_that_are_not_finite_become_null(tmp_path):
    History(tmp_path).append({"a": [math.nan, (math.inf, 1.5)], "b": {3: -math.inf}})
    assert History(tmp_path).read() == [{"a": [None, [None, 1.5]], "b": {"3": None}}]
    assert json_safe("text") == "text"


def test_a_history_refuses_what_it_could_not_give_back(tmp_path):
    with pytest.raises(ValueError, match="sha256"):
        History(tmp_path).append({"sha256": "mine"})
    with pytest.raises(ValueError, match="cannot cut"):
        History(tmp_path).truncate(1)


HOLD = "import sys; from pathlib import Path; from metaloss.storage import Lock\n"
HOLD += "with Lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_a_second_process_is_refused_at_once_and_a_kill_frees_the_lock(tmp_path):
    root = Path(metaloss.storage.__file__).parents[1]
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            RunInUse, match=rf"{tmp_path} is in use by pid {holder.pid} on \S+ since \d{{4}}-"
        ):
            Lock(tmp_path).__enter__()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with Lock(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("note", ["", "garbage", "[]", '{"pid": 1}', "[" * 4000])
def test_what_the_lock_file_says_is_never_trusted(tmp_path, note):
    with Lock(tmp_path):
        (tmp_path / "lock").write_text(note)
        with pytest.raises(RunInUse, match="in use by another process"):
            Lock(tmp_path).__enter__()
    with Lock(tmp_path):  # free, whatever the file says
        pass


@pytest.mark.parametrize("name", ["history.jsonl", "checkpoint/state-000001.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, name):
    commit(tmp_path, 1, {"generation": 1}, b"state")
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises((DamagedFile, DiskError), match=r"FIFO|needs [0-9]+ bytes"):
        recover(tmp_path)
