"""Files that hold their own digest.

Any bit counts, damage is named, and other programs still read them.
"""

import json
import math
import tomllib
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from metaloss import storage
from metaloss.errors import DamagedFile

TABLE = {"accuracy": 0.1 + 0.2, "name": "näh", "rows": [1, None, {"a": []}]}


def write_any(path):
    (path.parent / "written").write_bytes(b"anything\x00" * 9)
    storage.seal_file(path.parent / "written", path)


KINDS = {
    "json": (lambda path: storage.write_record(path, TABLE), storage.read_record),
    "toml": (lambda path: storage.write_toml(path, {"a": 1, "b": {"c": "x"}}), storage.read_toml),
    "safetensors": (
        lambda path: storage.write_tensors(path, {"w": torch.arange(3.0)}),
        storage.read_tensors,
    ),
    "ckpt": (write_any, storage.check_file),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_a_sealed_file_counts_and_so_does_its_length(tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    write, read = KINDS[kind]
    write(path)
    read(path)
    sound = path.read_bytes()
    flips = [
        sound[:i] + bytes([sound[i] ^ 1 << bit]) + sound[i + 1 :]
        for i in range(len(sound))
        for bit in (0, 5)
    ]
    for data in [*flips, b"", sound[:-1], sound + b"\n", sound[:40], sound.replace(b"\n", b"\r\n")]:
        if data != sound:
            path.write_bytes(data)
            with pytest.raises(DamagedFile, match=rf"file\.{kind} is damaged"):
                read(path)
    path.unlink()
    with pytest.raises(DamagedFile, match=rf"file\.{kind} is missing"):
        read(path)


def test_sealed_files_are_what_their_names_say_to_other_programs(tmp_path):
    for kind, (write, _) in KINDS.items():
        write(tmp_path / f"file.{kind}")
    table = json.loads((tmp_path / "file.json").read_bytes())
    assert len(table.pop("sha256")) == 64
    assert table == TABLE == storage.read_record(tmp_path / "file.json")
    assert tomllib.loads((tmp_path / "file.toml").read_text()) == {"a": 1, "b": {"c": "x"}}
    assert load_file(tmp_path / "file.safetensors")["w"].tolist() == [0, 1, 2]
    assert (tmp_path / "file.ckpt").read_bytes().startswith(b"anything\x00" * 9)


def test_a_checkpoint_of_torch_is_read_with_its_digest_behind_it(tmp_path):
    torch.save({"weights": torch.ones(4), "history": [{"epoch": 1}]}, tmp_path / "written")
    storage.seal_file(tmp_path / "written", tmp_path / "last.ckpt")
    storage.check_file(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["history"] == [{"epoch": 1}]


def test_numbers_that_are_not_finite_are_null_and_the_digest_s_name_is_taken(tmp_path):
    storage.write_record(tmp_path / "x.json", {"a": [math.nan, -math.inf]})
    assert storage.read_record(tmp_path / "x.json") == {"a": [None, None]}
    with pytest.raises(ValueError, match="sha256"):
        storage.write_record(tmp_path / "x.json", {"sha256": "mine"})


@dataclass(frozen=True)
class Score:
    loss: str
    accuracy: float | None
    failed: int = 0


def test_a_sealed_file_that_holds_something_else_is_damaged_too(tmp_path):
    path = tmp_path / "score.json"
    storage.write_record(path, {"loss": "ce", "accuracy": None})
    assert storage.read_record(path, Score) == Score("ce", None)
    for table, message in {
        "accuracy: field required": {"loss": "ce"},
        "accuracy: input should be a valid number": {"loss": "ce", "accuracy": "high"},
        "loss: input should be a valid string": {"loss": [], "accuracy": 1},
    }.items():
        storage.write_record(path, message)
        with pytest.raises(DamagedFile, match=rf"score\.json is damaged: {table}"):
            storage.read_record(path, Score)


def test_a_last_line_whose_end_alone_is_damaged_is_not_left_out(tmp_path):
    history = storage.History(tmp_path)
    for number in (1, 2):
        history.append({"n": number})
    sound = history.path.read_bytes()
    history.path.write_bytes(sound[:-1] + b"\x8a")
    for read in (history.read, history.mend):
        with pytest.raises(DamagedFile, match=r"history\.jsonl: line 2 is damaged"):
            read()
    assert history.path.read_bytes() == sound[:-1] + b"\x8a", "nothing is cut off"
    history.path.write_bytes(sound[:-1])
    assert history.mend() == [{"n": 1}]


def test_json_without_a_digest_has_null_for_what_is_not_finite():
    data = storage.json_bytes({"a": math.nan, 1: [1.5, -math.inf]})
    assert data == b'{\n "a": null,\n "1": [\n  1.5,\n  null\n ]\n}\n'
