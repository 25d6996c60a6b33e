"""Only regular files are read, up to a limit.

Small texts that ask for much work are refused at once.
"""

import json
import os
from pathlib import Path

import pytest

from metaloss.core import reading


def reason(path, limit=100):
    """Why a path is not read."""
    with pytest.raises(OSError) as caught:
        reading.read_bytes(path, limit)
    return caught.value.strerror


def test_a_file_up_to_the_limit_is_read_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(100))
    assert reading.read_bytes(path, 100) == bytes(100)
    (tmp_path / "link").symlink_to(path)
    assert reading.read_bytes(tmp_path / "link", 100) == bytes(100)


def test_a_file_above_the_limit_is_refused_with_both_sizes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(101))
    assert reason(path) == "found 101 bytes, expected at most 100"


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert reason(tmp_path / "fifo") == "found a FIFO, expected a regular file"


def test_devices_and_folders_are_refused(tmp_path):
    assert reason(Path("/dev/zero")) == "found a device, expected a regular file"
    assert reason(tmp_path) == "Is a directory"


def test_a_file_that_states_no_size_is_read_no_further_than_the_limit():
    path = Path("/proc/self/environ" if os.environ else "/proc/cpuinfo")
    assert path.stat().st_size == 0
    assert reason(path, limit=1) == "found more than 1 bytes, expected at most 1"


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffä b".encode())
    assert reading.read_text(path) == "ä b"


DEEP = {
    "arrays": "a = " + "[" * 2000 + "]" * 2000,
    "arrays on many lines": "a = " + "[\n" * 2000 + "]" * 2000,
    "tables": "a = " + "{a = " * 900 + "1" + "}" * 900,
    "key": ".".join("a" * 20_000) + " = 1",
    "quoted key": "b.".join(['"a".'] * 20_000) + "c = 1",
    "header": f"[{'.'.join('a' * 20_000)}]",
    "behind a text that ends in quotes": 'a = ["""b"""", ' + "[" * 2000 + ', "c"]',
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_toml_that_is_nested_too_deeply_is_refused_before_it_is_parsed(text):
    with pytest.raises(ValueError, match=r"nested more than 32 deep \(line [0-9]+\)"):
        reading.toml_table(text)


def test_brackets_and_dots_within_texts_and_comments_do_not_count():
    text = f"""
    # {"[" * 99} {"." * 99}
    plain = "{"[" * 99}{"." * 99}\\" ["  # {"{" * 99}
    literal = '{"[" * 99}\\'
    long = '''{"[" * 99}
    {"." * 99}'''
    numbers = [{"1.5, " * 99}]
    nested = {{a.b = [[1], [2]]}}
    """
    table = reading.toml_table(text)
    assert len(table["numbers"]) == 99
    assert table["nested"] == {"a": {"b": [[1], [2]]}}


def test_a_number_of_too_many_digits_is_no_toml():
    with pytest.raises(ValueError, match="digits"):
        reading.toml_table("a = " + "1" * 5000)


def test_json_that_is_nested_too_deeply_is_a_plain_error():
    with pytest.raises(ValueError, match="nested too deeply"):
        reading.json_value("[" * 100_000)
    assert reading.json_value(json.dumps({"a": [1]}).encode()) == {"a": [1]}
