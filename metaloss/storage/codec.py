"""Dataclasses of tensors and plain values as safetensors bytes and back, bit for bit.

Each tensor is stored under its path in the value. Everything else is one line of JSON in the
metadata: null, true, whole numbers and text are written as they are, anything else as an object
with one key that names its kind. Classes are found by name among those that the caller allows:
nothing is evaluated, imported or unpickled.
"""

import json
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any
from urllib.parse import quote

import safetensors.torch
import torch

from metaloss.errors import DamagedFile

HEADER_LIMIT = 1 << 20  # bytes
TREE = "tree"  # the metadata's key


def pack(value: Any, metadata: dict[str, str] | None = None) -> bytes:
    """`value` as safetensors bytes; equal values give equal bytes.

    Args:
        value: Dataclasses, tuples and dicts (with text as keys) of tensors, numbers, text and None.
        metadata: Further entries, for other programs that open the file.

    Raises:
        TypeError: The value holds something else.
        ValueError: The header would be larger than `unpack` accepts, or `metadata` has the entry
            "tree".
    """
    if TREE in (metadata or {}):
        raise ValueError(f'metadata may not have the entry "{TREE}"')
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_encode(value, "value", tensors), separators=(",", ":"))
    return _sorted_header(safetensors.torch.save(tensors, {**(metadata or {}), TREE: tree}))


def unpack(data: bytes, types: Iterable[type]) -> Any:
    """The value that was packed; its tensors are contiguous and on the CPU.

    Args:
        data: What `pack` returned.
        types: The dataclasses that may occur.

    Raises:
        DamagedFile: These are no such bytes; one line says why.
    """
    allowed = {cls.__name__: cls for cls in types}
    try:
        tree = json.loads(metadata(data)[TREE])
        tensors = safetensors.torch.load(data)
        value = _decode(tree, tensors, allowed)
    except DamagedFile:
        raise
    except Exception as error:  # a class that checks its fields may raise anything
        raise DamagedFile(
            f"not a packed value: {type(error).__name__} {ascii(str(error))[:200]}"
        ) from error
    if tensors:
        raise DamagedFile(
            f"{len(tensors)} tensors belong to nothing, e.g. {ascii(min(tensors))[:80]}"
        )
    return value


def metadata(data: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes.

    Raises:
        DamagedFile: There is no such metadata, or the header is larger than a megabyte.
    """
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(HEADER_LIMIT, len(data) - 8):
        raise DamagedFile(f"not safetensors: a header of {size} bytes in a file of {len(data)}")
    try:
        entries = json.loads(data[8 : 8 + size])["__metadata__"]
        if all(isinstance(text, str) for text in entries.values()):
            return dict(entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise DamagedFile("not safetensors with metadata: the header is damaged")


def _sorted_header(data: bytes) -> bytes:
    """The same file with its header sorted.

    safetensors writes metadata in an order that differs between processes.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    # safetensors pads its header to a multiple of eight bytes.
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"the header would take {len(header)} bytes, allowed are {HEADER_LIMIT}")
    return len(header).to_bytes(8, "little") + header + data[end:]


def _encode(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`value` as JSON; its tensors are put into `tensors` under their paths."""
    if isinstance(value, torch.Tensor):
        # A copy, because safetensors refuses tensors that share memory.
        tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": path}
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        # Hexadecimal keeps every bit, and NaN and infinity.
        return {"float": value.hex()}
    if type(value) is tuple:
        return {"tuple": [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if is_dataclass(value) and not isinstance(value, type):
        content = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        return {type(value).__name__: _encode_items(content, path, tensors)}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": _encode_items(value, path, tensors)}
    raise TypeError(f"{path}: cannot pack a {type(value).__name__}")


def _encode_items(
    items: dict[str, Any], path: str, tensors: dict[str, torch.Tensor]
) -> dict[str, Any]:
    # Keys are quoted: a "/" within a key must not make two paths equal.
    return {
        k: _encode(v, f"{path}/{quote(k, safe='', errors='surrogatepass')}", tensors)
        for k, v in items.items()
    }


def _decode(node: Any, tensors: dict[str, torch.Tensor], allowed: dict[str, type]) -> Any:
    """The value of a node; its tensors are taken out of `tensors`, so each is used once."""
    if node is None or type(node) in (bool, int, str):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors.pop(content)
    if kind == "float":
        return float.fromhex(content)
    if kind == "tuple":
        return tuple(_decode(item, tensors, allowed) for item in content)
    items = {key: _decode(item, tensors, allowed) for key, item in content.items()}
    return items if kind == "dict" else _build(kind, items, allowed)


def _build(name: str, items: dict[str, Any], allowed: dict[str, type]) -> Any:
    """The dataclass of that name with these fields; a DamagedFile where they do not match."""
    if name not in allowed:
        raise DamagedFile(f"unknown type {ascii(name)[:80]}, allowed are {sorted(allowed)}")
    expected = {field.name for field in fields(allowed[name]) if field.init}
    if wrong := sorted(expected ^ items.keys()):
        raise DamagedFile(f"{name}: missing or unknown fields {ascii(wrong)[:80]}")
    return allowed[name](**items)
