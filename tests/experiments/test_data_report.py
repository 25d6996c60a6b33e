"""`metaloss data show`: what it finds in a folder, what it writes, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scans
from PIL import Image

import metaloss as package
from metaloss.core.proportions import wilson
from metaloss.data import datasets
from metaloss.data.inspection import first_lines, inspect, inspect_dataset
from metaloss.errors import DataError, SettingsError
from metaloss.experiments.inspection import inspect as report


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Thirty bright images and ten dark ones."""
    monkeypatch.chdir(tmp_path)
    scans.written(tmp_path, images=30)
    for i in range(10, 30):
        (tmp_path / "scans" / "dark" / f"{i}.png").unlink()
    return tmp_path / "scans"


def shown(metaloss, *arguments):
    code, out, err = metaloss("data", "show", "folder:scans", *arguments)
    return code, out.splitlines(), err


def test_classes_sizes_and_what_they_mean_for_accuracy_are_printed(metaloss, folder):
    Image.new("L", (20, 10), 9).save(folder / "dark" / "99.png")
    code, lines, err = shown(metaloss)
    assert (code, err) == (0, "")
    assert lines[0] == "data    folder:scans: 41 images, 2 classes"
    assert [line.split() for line in lines[1:4]] == [
        ["class", "images", "share", "to", "test", "on"],
        ["bright", "30", "73.2", "%", "6"],
        ["dark", "11", "26.8", "%", "2"],
    ]
    assert lines[4] == "sizes   12x12 (40), 20x10 (1), width x height"
    assert "metric  'bright' as every answer: accuracy 75.0 % on the test images" in lines
    assert any("accuracy lets a network give up 'dark'" in line for line in lines)
    assert any("1 image of one colour (dark/99.png)" in line for line in lines)
    assert lines[-1] == (
        "wrote inspections/folder_scans/{classes.png, contact_sheet.png, report.html, summary.json}"
    )


def test_a_metric_that_counts_classes_alike_makes_mistakes_on_the_small_one_dear(metaloss):
    _, lines, _ = shown(metaloss, "--metric", "balanced_accuracy")
    assert "metric  'bright' as every answer: balanced accuracy 50.0 % on the test images" in lines
    # One of 6 bright images and one of 2 dark ones, each half of the mean.
    assert (
        "metric  one wrong answer more takes off 8.3 points for a 'bright' and 25.0 points for a "
        "'dark'" in lines
    )


def test_of_probabilities_the_shares_of_the_classes_are_told(metaloss):
    _, lines, _ = shown(metaloss, "--metric", "nll")
    # Training shares 24 and 8 of 32, test images 6 and 2.
    value = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    line = next(line for line in lines if "the classes' shares alone" in line)
    assert f" {value:.3f} on the test images" in line


def test_copies_are_named_across_classes_and_across_the_split(metaloss, folder):
    shutil.copy(folder / "bright" / "03.png", folder / "dark" / "90.png")
    found = inspect("folder:scans")
    trained, tested = (
        [name for name, test in zip(found.names, found.test.tolist(), strict=True)
         if test == side and name.startswith("bright")]
        for side in (False, True)
    )  # fmt: skip
    Image.open(folder / trained[0]).save(folder / tested[0])
    _, lines, _ = shown(metaloss)
    notes = [line for line in lines if line.startswith("note")]
    assert "2 images have a copy in another class (bright/03.png = dark/90.png)" in notes[0]
    assert "on both sides of the split" in notes[1]
    assert trained[0] in notes[1]
    assert tested[0] in notes[1]


def test_every_damaged_file_is_named_and_the_command_fails_after_its_report(metaloss, folder):
    (folder / "dark" / "00.png").write_bytes(b"no image")
    (folder / "bright" / "notes.txt").write_text("no image either")
    code, lines, err = shown(metaloss)
    assert code == 2
    assert err.startswith("error: 2 files cannot be read (bright/notes.txt: image: found none")
    assert "dark/00.png" in err
    assert "remove or replace them" in err
    assert lines[-1].startswith("wrote ")
    table = json.loads("\n".join(shown(metaloss, "--json")[1]))
    assert [row["file"] for row in table["damaged"]] == ["bright/notes.txt", "dark/00.png"]


def test_json_is_all_that_is_printed_and_holds_all(metaloss):
    code, lines, err = shown(metaloss, "--json")
    table = json.loads("\n".join(lines))
    assert (code, err) == (0, "")
    assert table["classes"] == {
        "bright": {"images": 30, "test": 6},
        "dark": {"images": 10, "test": 2},
    }
    assert table["copies"] == {
        "in_another_class": 0,
        "on_both_sides_of_the_split": 0,
        "pairs": [],
    }
    assert table["sizes"] == [{"size": [12, 12], "images": 40}]


def test_the_page_needs_no_other_file_and_obeys_no_name(folder, metaloss):
    (folder / "dark").rename(folder / "<b>dark")
    shown(metaloss)
    page = next(folder.parent.glob("inspections/*/report.html")).read_text()
    assert "&lt;b&gt;dark" in page
    assert "<b>dark" not in page
    assert page.count('src="data:image/png;base64,') == 2
    assert "http" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: shutil.rmtree(root / "dark"), "found 1 (bright), expected at least 2"),
        (
            lambda root: [x.unlink() for x in (root / "dark").iterdir()],
            "dark: images: found none, expected at least 1",
        ),
        (
            lambda root: [x.write_bytes(b"") for x in root.glob("*/*")],
            "found no file that can be read as an image (bright/00.png: ",
        ),
        (shutil.rmtree, "scans: folder: found none, expected a folder"),
    ],
    ids=["one class", "no image", "nothing readable", "no folder"],
)
def test_what_cannot_be_looked_at_is_refused_in_one_line(metaloss, folder, change, words):
    change(folder)
    code, lines, err = shown(metaloss)
    assert (code, lines) == (2, [])
    assert words in err
    assert not (folder.parent / "inspections").exists()


def test_metrics_that_do_not_fit_and_classes_of_pixels_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="unknown metric 'f2'"):
        report("folder:scans", metric="f2")
    with pytest.raises((SettingsError, DataError)):
        report(f"voc:{tmp_path}")


def test_a_data_set_in_memory_is_looked_at_like_its_files():
    files = inspect("folder:scans")
    memory = inspect_dataset(datasets.load("folder:scans"), "folder:scans")
    assert files.counts == memory.counts == [(30, 6), (10, 2)]
    assert files.names == memory.names
    assert files.facts.digests.tolist() == memory.facts.digests.tolist()
    assert (files.facts.small - memory.facts.small).abs().max() <= 1  # rounded by Pillow


def test_large_sets_are_sampled_and_it_is_said(monkeypatch, metaloss):
    from metaloss.data import inspection as module

    monkeypatch.setattr(module, "MOST", 12)
    _, lines, _ = shown(metaloss)
    assert lines[1].strip() == "sizes, copies and damage are those of a sample of 12 images"
    assert lines[3].split()[:2] == ["bright", "30"]


def test_a_table_of_features_has_no_pictures(tmp_path, metaloss):
    labels = np.repeat([0, 1], [30, 10])
    features = np.random.default_rng(0).normal(size=(40, 5))
    features[35] = features[2]
    np.savez(tmp_path / "f.npz", features=features, labels=labels)
    code, out, _ = metaloss("data", "show", "file:f.npz")
    assert code == 0
    assert "40 rows of features" in out
    assert "have a copy in another class (training row 2 = training row 35)" in out
    assert "{classes.png, report.html, summary.json}" in out


def test_images_of_sixteen_bits_are_looked_at(folder):
    for path in sorted(folder.glob("*/*")):
        wide = np.asarray(Image.open(path)).astype(np.uint16) * 250
        Image.fromarray(wide).save(path)
    found = inspect("folder:scans")
    assert found.damaged == ()
    assert report("folder:scans").summary["images"] == 40


def test_images_of_an_official_test_split_are_counted_apart(metaloss, folder):
    for name, n in (("bright", 3), ("dark", 4)):
        (folder.parent / "set/train").mkdir(parents=True, exist_ok=True)
        shutil.move(folder / name, folder.parent / "set/train" / name)
        (folder.parent / "set/test" / name).mkdir(parents=True)
        for i in range(n):
            noise = np.random.default_rng((n, i)).integers(256, size=(9, 9), dtype=np.uint8)
            Image.fromarray(noise).save(folder.parent / f"set/test/{name}/{i}.png")
    code, out, _ = metaloss("data", "show", "folder:set")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == (
        "data    folder:set: 47 images, 2 classes; 40 images to train on (train) and 7 of an "
        "official test split (test) of set"
    )
    assert [line.split() for line in lines[1:4]] == [
        ["class", "to", "train", "on", "share", "to", "test", "on"],
        ["bright", "30", "75.0", "%", "3"],
        ["dark", "10", "25.0", "%", "4"],
    ]
    assert any("it has 25.0 % of the images to train on" in line for line in lines)
    page = next(folder.parent.glob("inspections/*/report.html")).read_text()
    assert "to test on (official split)" in page
    assert first_lines(datasets.load("folder:set"), "folder:set")[0] == (
        "images  folder:set: 40 of 2 classes (bright 30, dark 10) to train on; 7 in the official "
        "test split"
    )


def test_the_data_are_called_as_they_were_asked_for(metaloss, folder):
    (folder.parent / "deep").mkdir()
    shutil.move(folder, folder.parent / "deep" / "scans")
    _, out, _ = metaloss("data", "show", "folder:deep/scans")
    assert out.startswith("data    folder:deep/scans: 40 images, 2 classes\n")
    assert json.loads(next(Path("inspections").glob("*/summary.json")).read_text())["data"] == (
        "folder:deep/scans"
    )


def test_python_has_the_report_as_the_command_prints_it(metaloss, folder):
    shown_lines = shown(metaloss, "--metric", "balanced_accuracy", "--set", "background=black")[1]
    found = package.inspect("folder:scans", metric="balanced_accuracy", background="black")
    assert str(found).splitlines() == shown_lines[:-1]
    assert found.summary == json.loads((found.folder / "summary.json").read_text())
    found.check()
    (folder / "dark" / "00.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="1 file cannot be read"):
        package.inspect("folder:scans").check()
    with pytest.raises(SettingsError, match="unknown setting 'sise'"):
        package.inspect("folder:scans", sise=3)


@pytest.mark.parametrize(("k", "n"), [(0, 4), (2, 4), (4, 4), (37, 300)])
def test_the_interval_of_a_share_is_scipy_s(k, n):
    from scipy.stats import binomtest

    expected = binomtest(k, n).proportion_ci(method="wilson")
    assert wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_command_that_takes_a_folder_says_so_much_of_it_first(metaloss, folder):
    shutil.copy(folder / "bright" / "03.png", folder / "dark" / "90.png")
    small = ("--set", "shots=1", "val=1", "inner.steps=2", "classifier.hidden=[4]")
    code, out, _ = metaloss(
        "evolve", "--tasks", "folder:scans", *small, "--mu", "2", "--lambda", "2",
        "--generations", "1", "--set", "baseline_tasks=2", "winner_tasks=2", "test_tasks=2",
    )  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    at = lines.index("images  folder:scans: 41 of 2 classes (bright 30, dark 11)")
    assert lines[at + 1].strip().startswith("2 images have a copy in another class (")
    assert lines[at + 2].strip() == (
        "'bright' as every answer is right for 73.2 % of them; "
        "more: metaloss data show folder:scans"
    )
