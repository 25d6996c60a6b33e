"""What `held_out_kinds.py` keeps: rows in a file, one a line, and answers in a folder beside it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass
class Store:
    """Rows, and answers to compare later losses with.

    Attributes:
        path: of the rows; the answers lie in the folder beside it.
    """

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def at(cls, path: Path) -> "Store":
        """The store that lies at a path, or an empty one.

        The last line is dropped where a stop has cut it off.
        """
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):
            path.write_text("".join(whole))
        return cls(path, [json.loads(line) for line in whole])

    def has(self, key: Mapping[str, Any]) -> bool:
        """Whether there is a row with this key, and its answers where it has some."""
        here = any(_has_key(row, key) for row in self.rows)
        return here and (key["what"] != "measured" or self._file(key).is_file())

    def find(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """The newest row with this key."""
        return next(row for row in reversed(self.rows) if _has_key(row, key))

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def keep_answers(self, key: Mapping[str, Any], answers: Sequence[Float[Tensor, "T V"]]) -> None:
        """Keep which images are answered right, 1 or 0, with each setting."""
        path = self._file(key)
        path.parent.mkdir(exist_ok=True)
        right = torch.stack(list(answers)).bool().numpy()
        np.savez(path, bits=np.packbits(right, axis=-1), images=right.shape[-1])

    def answers(self, key: Mapping[str, Any]) -> Float[Tensor, "S T V"]:
        """The answers with every setting."""
        with np.load(self._file(key)) as kept:
            right = np.unpackbits(kept["bits"], axis=-1, count=int(kept["images"]))
        return torch.from_numpy(right).float()

    def _file(self, key: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return self.path.with_name(f"{self.path.name}.answers") / f"{name}.npz"


def _has_key(row: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    return all(row.get(name) == value for name, value in key.items())
