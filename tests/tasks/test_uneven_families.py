"""A folder without a family: tasks as uneven as its classes, or even ones, and what is said."""

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.core.streams import Stream
from metaloss.data.shapes import ProportionalShots, ProportionalVal
from metaloss.errors import DataError
from metaloss.experiments.comparison.families import read_families
from metaloss.experiments.comparison.settings import Comparison
from metaloss.search import settings
from metaloss.tasks import episodic, episodic_family

USER = {"coat": 45, "pullover": 120, "shirt": 18}
TINY = ("--set", "inner.steps=2", "classifier.hidden=[4]", "baseline_tasks=2", "winner_tasks=2")


def pictures(root, counts):
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.random.default_rng((len(root.name), len(name), i)).integers(
                256, size=(5, 4)
            )
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:03}.png")
    return root


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return pictures(tmp_path / "scans", USER)


@pytest.mark.parametrize("split", [False, True], ids=["whole", "with a test split"])
def test_tasks_of_an_uneven_folder_fit_every_pool_in_the_classes_proportions(folder, split):
    if split:
        folder.rename(folder.parent / "train")
        folder.mkdir()
        (folder.parent / "train").rename(folder / "train")
        pictures(folder / "testing", dict.fromkeys(USER, 30))
    family = episodic_family.read("folder:scans")
    assert (family.ways, family.metric["kind"]) == (3, "balanced_accuracy")
    assert isinstance(family.shots, ProportionalShots)
    assert isinstance(family.val, ProportionalVal)
    opened = episodic.open_episodes(family)
    for pool in ("train", "validation", "test"):
        task = opened.sample([Stream(0)], pool).train.label[0]
        # A task numbers its classes anew.
        shirt, coat, pullover = sorted(task.bincount(minlength=3).tolist())
        assert pullover > 2 * coat > 2 * shirt > 0


def test_named_shots_are_even_tasks_that_fit(folder):
    family = episodic_family.read("folder:scans", {"shots": 2})
    assert (family.shots, family.val, family.metric) == (2, 2, None)
    episodic.open_episodes(family)


def test_classes_that_are_nearly_even_get_even_tasks(tmp_path):
    pictures(tmp_path / "scans", {"a": 30, "b": 20})
    family = episodic_family.read(f"folder:{tmp_path / 'scans'}")
    assert (family.shots, family.val, family.metric) == (1, 3, None)


def test_searched_losses_see_the_shares_of_uneven_classes_unless_told_otherwise(folder):
    def genome(**table):
        return settings.resolve({"tasks": ("folder:scans",), **table}).genome

    for kind in ("mln", "targets", "taylor", "tree", "graph"):
        assert genome(genome={"kind": kind})["prior"] is True
    assert genome(genome={"kind": "targets", "prior": False})["prior"] is False
    assert genome(shots=1)["prior"] is False
    assert settings.resolve({"tasks": ("digits-longtail",)}).genome["prior"] is False


def test_a_metric_that_is_named_is_kept(folder):
    (family,) = settings.resolve({"tasks": ("folder:scans",), "metric": "macro_f1"}).families
    assert family.metric["kind"] == "macro_f1"
    (family,) = settings.resolve({"tasks": ("folder:scans",), "metric": "accuracy"}).families
    assert family.metric is None
    assert isinstance(family.shots, ProportionalShots)


def test_a_comparison_draws_the_same_tasks_as_a_search(folder):
    compared = read_families(Comparison(tasks=("folder:scans",)), {}, ["ce"])
    assert tuple(compared) == settings.resolve({"tasks": ("folder:scans",)}).families


def test_pools_keep_groups_whole_and_a_class_of_too_few_groups_is_refused(folder):
    names = [f"{path.parent.name}/{path.name}" for path in sorted(folder.glob("*/*"))]
    table = folder.parent / "groups.csv"
    table.write_text("\n".join(f"{name},{i // 3}" for i, name in enumerate(names)))
    family = episodic_family.read("folder:scans", {"groups": str(table)})
    episodic.open_episodes(settings.changed(family, {"groups": str(table)}))
    rare = [f"{name},{'s' if 'shirt' in name else i}" for i, name in enumerate(names)]
    table.write_text("\n".join(rare))
    with pytest.raises(DataError, match="groups leave a class 0 images in one of its pools"):
        episodic_family.read("folder:scans", {"groups": str(table)})


def test_the_first_lines_say_how_tasks_are_drawn_and_how_to_get_others(folder, metaloss):
    reason = (
        "        in the classes' own proportions, as 'pullover' has 6.7 times the images of "
        "'shirt'; --set shots=1 draws even tasks"
    )
    shares = "genome  sees the share of each class (--set genome.prior=false: not)"
    search = ("--generations", "1", "--mu", "2", "--lambda", "2", *TINY, "test_tasks=2")
    code, out, err = metaloss("evolve", "--tasks", "folder:scans", *search)
    assert (code, err) == (0, "")
    assert reason in out.splitlines()
    assert shares in out.splitlines()
    assert "metric  balanced accuracy, more is better" in out.splitlines()
    _, out, _ = metaloss("evolve", "--tasks", "folder:scans", *search, "shots=1")
    assert "proportions" not in out
    assert shares not in out
    budget = ("--tuning-tasks", "2", "--test-tasks", "2", "--no-rivals", *TINY[:3])
    code, out, _ = metaloss("compare", "ce", "mse", "--tasks", "folder:scans", *budget)
    assert code == 0
    assert reason in out.splitlines()


def test_what_a_task_validates_on_is_no_image_that_it_trains_on(folder):
    opened = episodic.open_episodes(episodic_family.read("folder:scans"))
    tasks = opened.sample([Stream(1)], "train")
    train, val = (x.x().flatten(2)[0] for x in (tasks.train, tasks.val))
    assert not (torch.cdist(train.double(), val.double()) < 1e-9).any()
