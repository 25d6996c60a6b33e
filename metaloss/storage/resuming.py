"""What must agree where a job goes on in its folder: its settings and its conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaloss import storage
from metaloss.errors import SettingsError
from metaloss.storage.environment import Recorded


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys of two tables whose values are not equal, or that one of them lacks."""
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


@dataclass(frozen=True)
class ResumableFolder:
    """A job's folder, in which the job goes on only as it began.

    Attributes:
        path: the folder.
        job: the kind of job, for messages: "run", "training", "study".
        provenance: the type that the folder's `provenance.json` must fit.
    """

    path: Path
    job: str
    provenance: type = Recorded

    def check_settings(
        self,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        may_differ: Sequence[str] = (),
        owner: str = "it",
    ) -> None:
        """Refuse settings that are given again and are others.

        Args:
            old: the settings that the job began with.
            new: those that it would go on with.
            may_differ: keys of settings that may be others.
            owner: of the old ones, for the message.

        Raises:
            SettingsError: names every setting that differs.
        """
        if different := [key for key in differing_keys(old, new) if key not in may_differ]:
            listed = "; ".join(
                f"{key}: {owner} has {old.get(key)}, given {new.get(key)}" for key in different
            )
            raise SettingsError(f"a resumed {self.job} keeps its settings: {listed}")

    def check_conditions(self, now: dict[str, str], allow: bool) -> str:
        """Refuse to go on under other conditions than before, or put on record that it does.

        Args:
            now: the conditions that the job would go on under.
            allow: go on all the same.

        Returns:
            Every condition that differs, in one line; empty where none does.

        Raises:
            SettingsError: conditions differ and that is not allowed.
        """
        path = self.path / "provenance.json"
        table = storage.read_record(path, self.provenance, storage.RESTORE_COPY)
        resumptions = table.get("resumed") or []
        # What counts is what the job last went on under, not what it began with.
        last = {**table["conditions"], **(resumptions[-1] if resumptions else {})}
        different = "; ".join(
            f"{key}: was {last.get(key)}, is {now[key]}" for key in now if last.get(key) != now[key]
        )
        if not different:
            return ""
        if not allow:
            raise SettingsError(
                f"this {self.job} began elsewhere ({different}); --allow-changes goes on all the "
                "same"
            )
        storage.write_record(path, {**table, "resumed": [*resumptions, now]})
        return different
