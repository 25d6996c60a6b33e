"""What must agree where a run goes on: its settings, and the conditions that it began under."""

from typing import Any

import torch

from metaloss.core.config import merge_tables
from metaloss.core.reporting import Reporter
from metaloss.data import image_record
from metaloss.data.image_record import ImageRecord
from metaloss.data.places import is_path_source
from metaloss.errors import SettingsError
from metaloss.search import settings
from metaloss.search.learned_images import image_records
from metaloss.search.run_folder import Run
from metaloss.search.settings import Settings
from metaloss.storage.environment import Provenance
from metaloss.storage.resuming import ResumableFolder
from metaloss.tasks.opening import OpenFamily, conditions


def moved_images(old: Settings, changes: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The changes without new places of images, which are given as `tasks`, and those places."""
    tasks = changes.get("tasks", ())
    tasks = (tasks,) if isinstance(tasks, str) else tasks
    if any(task not in old.tasks for task in tasks if not is_path_source(task)):
        return changes, []  # which is refused with all other changes
    return {k: v for k, v in changes.items() if k != "tasks"}, [
        task for task in tasks if is_path_source(task)
    ]


def checked_settings(run: Run, changes: dict[str, Any]) -> Settings:
    """A run's settings with what may change: more generations.

    Raises:
        SettingsError: names all others that differ, or that the generations are fewer.
    """
    old = run.settings
    new = settings.resolve(merge_tables(old.table(), changes))
    if new.generations < old.generations:
        raise SettingsError(
            f"generations: the run has {old.generations}, {new.generations} is less"
        )
    ResumableFolder(run.folder, "run").check_settings(
        _flat(old.table()), _flat(new.table()), ("generations",), owner="the run"
    )
    return new


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The table's values under their dotted paths; a family goes by its name."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        below = {family["name"]: family for family in value} if key == "families" else value
        result |= (
            _flat(below, f"{prefix}{key}.") if isinstance(below, dict) else {prefix + key: below}
        )
    return result


def check_conditions(
    run: Run, families: list[OpenFamily], device: torch.device, allow: bool, reporter: Reporter
) -> None:
    """Refuse to go on under other conditions than the run began with; or record that it does.

    Args:
        run: its folder and settings.
        families: the task families with their images.
        device: where classifiers train now.
        allow: go on all the same.
        reporter: is warned of it.

    Raises:
        SettingsError: conditions differ and that is not allowed.
    """
    now = conditions(families, device, run.settings.parts_by_name())
    different = ResumableFolder(run.folder, "run", Provenance).check_conditions(now, allow)
    if not different:
        return
    reporter.on_warning(f"goes on under other conditions: {different}")
    # Changed images add to the record: the loss has then learned from both.
    before = image_record.read(run.folder) or ImageRecord()
    image_record.write(
        run.folder,
        image_record.join_records([before, *image_records(families)]),
    )
