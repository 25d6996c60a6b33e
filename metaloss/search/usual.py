"""Settings of a search that follow from others, where nothing is said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaloss.core import registry
from metaloss.tasks.opening import Family, MixtureFamily, TaskFamily
from metaloss.tasks.uneven import fitted_as_is

GENOME = "mln"


def of_genome(table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that suit the genome it asks for."""
    genome_table = table.get("genome")
    genome = str(genome_table.get("kind", GENOME)) if isinstance(genome_table, Mapping) else GENOME
    usual: dict[str, Any] = {}
    if genome in registry.names("genomes"):
        usual = registry.part("genomes", genome).usual  # type: ignore[attr-defined]
    return {"genome": {"kind": genome}, **usual}


def of_families(table: dict[str, Any], families: Sequence[Family]) -> dict[str, Any]:
    """The settings that suit the task families.

    Args:
        table: the genome's settings.
        families: those of the run.
    """
    usual: dict[str, Any] = {"genome": _genome_for(table, families)}
    if any(isinstance(x, MixtureFamily) for x in families):
        # Points gained at kinds where little is to be gained would not count beside the others'.
        usual["objective"] = "regret"
        # 200 tasks are three of each of 64 kinds: they order losses that are alike by luck.
        usual["winner_tasks"] = 1000
    return usual


def _genome_for(table: dict[str, Any], families: Sequence[Family]) -> dict[str, Any]:
    """The genome's table; its losses see the classes' shares where tasks are as uneven as a folder.

    Without them no loss can tell a rare class from a frequent one. What the table says of it stays.
    """
    fields = getattr(registry.part("genomes", table["kind"]), "__dataclass_fields__", {})
    as_is = any(isinstance(x, TaskFamily) and fitted_as_is(x) for x in families)
    return {**table, "prior": True} if as_is and "prior" in fields.keys() - table.keys() else table
