"""Images with masks in VOC's format.

Where they are looked for, what is read, and what is wrong with a folder.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import vocfolder
from PIL import Image

from metaloss.cli import doctor
from metaloss.data import datasets
from metaloss.data.datasets.voc import COLOUR, VOC, scenes
from metaloss.errors import DataError, SettingsError


@pytest.fixture
def root(tmp_path):
    return vocfolder.write(tmp_path / "tiny", train=3, val=2)


def test_the_lists_are_the_splits(root):
    found = scenes(str(root))
    assert [path.stem for path in found.paths] == [path.stem for path in found.masks]
    assert found.test.tolist() == [False] * 3 + [True] * 2
    assert (found.name, found.classes) == ("voc:tiny", ("ground", "red", "blue"))
    assert found.origin.endswith("tiny, tested on its val.txt")


def test_masks_keep_their_numbers_and_what_lies_beside_an_image_counts_for_nothing(root):
    found = scenes(str(root))
    pixels, mask = found.pair(0, 32)  # 32 high, 24 wide
    stored = torch.from_numpy(np.array(Image.open(found.masks[0])))
    assert torch.equal(mask[:, 4:28], stored)
    assert set(stored.unique().tolist()) == {0, 1, 2, 255}
    assert (mask[:, :4] == 255).all()
    assert (mask[:, 28:] == 255).all()
    assert torch.equal(
        pixels[:, :, 4:28], torch.from_numpy(np.array(Image.open(found.paths[0]))).permute(2, 0, 1)
    )
    assert (pixels[:, :, :4] == torch.tensor(COLOUR)[:, None, None]).all()


def test_another_size_makes_no_new_classes(root):
    pixels, mask = scenes(str(root)).pair(1, 20)  # 24 high, 32 wide: 15 by 20
    assert pixels.shape == (3, 20, 20)
    assert mask.shape == (20, 20)
    assert set(mask.unique().tolist()) <= {0, 1, 2, 255}
    assert (mask[:2] == 255).all()
    assert (mask[-3:] == 255).all()
    assert (mask[2:17] != 255).any(1).all()


def test_voc_s_own_archive_is_found_with_its_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    vocfolder.write(tmp_path / "voc" / "VOCdevkit" / "VOC2012", train=2, val=1, names=())
    assert scenes().classes == VOC
    assert len(VOC) == 21
    assert scenes(str(tmp_path / "voc")).name == "voc:VOC2012"


def test_without_names_classes_are_numbered(tmp_path):
    assert scenes(str(vocfolder.write(tmp_path / "own", train=2, val=1, names=()))).classes == (
        "0",
        "1",
        "2",
    )


def test_the_fingerprint_follows_files_and_classes(root):
    before = scenes(str(root)).fingerprint()
    assert scenes(str(root)).fingerprint() == before
    (root / "classes.txt").write_text("ground\nred\ngreen\n")
    assert scenes(str(root)).fingerprint() != before


def mask(root, array, mode="P"):
    path = root / "SegmentationClass" / "2007_000000.png"
    vocfolder.save(path, array) if mode == "P" else Image.fromarray(array, mode).save(path)


LISTS = "ImageSets/Segmentation"
WRONG = {
    "no folder": (
        lambda root: (root / "SegmentationClass").rename(root / "x"),
        "tiny: found no VOC folder, expected",
    ),
    "no list": (
        lambda root: (root / LISTS / "val.txt").unlink(),
        "val.txt: list: found none that can be read",
    ),
    "empty list": (
        lambda root: (root / LISTS / "val.txt").write_text("\n"),
        "val.txt: names: found none",
    ),
    "both lists": (
        lambda root: (root / LISTS / "val.txt").write_text("2007_000001"),
        "2007_000001 is in train.txt and",
    ),
    "no image": (
        lambda root: (root / "JPEGImages" / "2007_000000.jpg").unlink(),
        "2007_000000.jpg: found none",
    ),
    "size": (
        lambda root: mask(root, np.zeros((3, 4), np.uint8)),
        "size: found 4x3, expected 24x32 as of 2007_000000",
    ),
    "class": (
        lambda root: mask(root, np.full((32, 24), 3, np.uint8)),
        "class 3: expected 0 to 2, or 255",
    ),
    "colours": (
        lambda root: mask(root, np.zeros((32, 24, 3), np.uint8), "RGB"),
        "found RGB, expected a palette",
    ),
    "damaged": (
        lambda root: (root / "JPEGImages" / "2007_000000.jpg").write_bytes(b"x"),
        "expected an image file",
    ),
    "no text": (
        lambda root: (root / "classes.txt").write_bytes(b"\xff"),
        "classes.txt: list: found none that can be",
    ),
    "one class": (
        lambda root: (root / "classes.txt").write_text("ground\n"),
        "classes: found 1, expected 2 to 254",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_with_the_file_s_name(root, what):
    spoil, message = WRONG[what]
    spoil(root)
    with pytest.raises(DataError) as caught:
        scenes(str(root)).pair(0, 32)
    assert message in str(caught.value)


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte-order mark"])
def test_names_may_have_spaces_and_lists_a_byte_order_mark(root, mark):
    for path in (root / "JPEGImages/2007_000000.jpg", root / "SegmentationClass/2007_000000.png"):
        path.rename(path.with_stem("first one"))
    names = ["first one", "2007_000001", "2007_000002"]
    (root / LISTS / "train.txt").write_text(
        mark + "\r\n".join(f" {x} " for x in names) + "\r\n\r\n", encoding="utf-8"
    )
    (root / "classes.txt").write_text(f"{mark}the ground\nred\nblue\n", encoding="utf-8")
    found = scenes(str(root))
    assert [path.stem for path in found.paths[:3]] == names
    assert found.classes == ("the ground", "red", "blue")


def test_masks_of_one_bit_have_two_classes(root):
    (root / "classes.txt").unlink()
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray(np.array(Image.open(path)) == 1).save(path)
    found = scenes(str(root))
    assert found.classes == ("0", "1")
    assert set(found.pair(0, 32)[1].unique().tolist()) == {0, 1, 255}
    assert found.counts(0)[:2].sum() == 24 * 32


def test_masks_of_0_and_255_are_explained(root):
    (root / "classes.txt").unlink()
    for path in (root / "SegmentationClass").iterdir():
        Image.fromarray(np.uint8(255) * (np.array(Image.open(path)) == 1)).save(path)
    with pytest.raises(DataError) as caught:
        scenes(str(root))
    line = str(caught.value)
    assert line.startswith(
        f"{root}: masks: found 0 and 255 alone, and 255 counts for nothing; masks of two classes "
        "hold"
    )
    assert "\n" not in line
    assert "Image.fromarray((np.asarray(mask) == 255)" in line


# --- a data source like the others ---


def test_verify_counts_the_pixels_of_every_class(root):
    lines = datasets.verify(f"voc:{root}")
    assert lines[0] == f"voc:tiny: {root}, tested on its val.txt"
    assert lines[1] == "5 images (3 to train, 2 to test) with a class for every pixel, 3 classes"
    numbers = {
        name: (int(a), int(b)) for name, a, b in (line.rsplit(maxsplit=2) for line in lines[3:-1])
    }
    masks = [np.array(Image.open(path)) for path in scenes(str(root)).masks]
    for number, name in {0: "ground", 1: "red", 2: "blue", 255: "no class"}.items():
        assert numbers[name] == tuple(
            sum(int((x == number).sum()) for x in part) for part in (masks[:3], masks[3:])
        )
    assert lines[-1] == f"fingerprint {scenes(str(root)).fingerprint()}"


@pytest.mark.parametrize("what", ["size", "class", "colours", "damaged"])
def test_verify_looks_at_every_file(root, what):
    spoil, message = WRONG[what]
    spoil(root)
    with pytest.raises(DataError) as caught:
        datasets.verify(f"voc:{root}")
    assert message in str(caught.value)


def test_verify_sees_an_image_that_is_cut_off(root):
    path = root / "JPEGImages" / "2007_000004.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"2007_000004.jpg: image: found none that can be read"):
        datasets.verify(f"voc:{root}")


def test_the_doctor_and_the_message_say_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    missing = doctor._data("voc")
    assert missing.found == "not here"
    assert missing.advice.endswith("get that with: metaloss data fetch voc")
    root = vocfolder.write(tmp_path / "voc")
    assert doctor._data("voc").found == f"{root}, tested on its val.txt"


def test_fetch_lets_torchvision_download(tmp_path, monkeypatch, capsys):
    from torchvision.datasets import voc

    def download(url, root, **_):
        print("extracting")
        vocfolder.write(Path(root) / "VOCdevkit" / "VOC2012", train=2, val=1, names=())
        (
            Path(root) / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "trainval.txt"
        ).write_text("")

    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    monkeypatch.setattr(voc, "download_and_extract_archive", download)
    root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    assert datasets.fetch("voc") == f"voc: 3 images, 21 classes; {root}, tested on its val.txt"
    assert capsys.readouterr().out == ""
    with pytest.raises(
        SettingsError, match="comes into the data folder: metaloss data fetch voc, got 'voc:scans'"
    ):
        datasets.fetch("voc:scans")


def test_without_network_fetch_says_where_to_put_the_folders(tmp_path, monkeypatch):
    from torchvision.datasets import voc

    def download(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    monkeypatch.setattr(voc, "download_and_extract_archive", download)
    with pytest.raises(
        DataError,
        match=r"voc: download failed \(no network\); by hand: put VOCdevkit/VOC2012/JPEGIm",
    ):
        datasets.fetch("voc")


@pytest.mark.parametrize(
    "command",
    [
        *(
            "evolve --tasks voc",
            "evolve --tasks voc:tiny",
            "evolve --tasks own.toml",
            "evolve --tasks own-full.toml",
        ),
        *("compare ce --tasks own.toml", "compare ce --tasks voc:tiny"),
        *("recommend --data voc", "recommend --data voc:tiny"),
    ],
)
def test_what_needs_a_class_of_every_image_refuses(metaloss, root, monkeypatch, command):
    monkeypatch.chdir(root.parent)
    Path("own.toml").write_text('dataset = "voc:tiny"\nways = 2\nshots = 1\nval = 1\n')
    Path("own-full.toml").write_text(
        'kind = "training"\ntraining = { data = "voc:tiny", model = "fcn_small" }\n'
    )
    code, out, err = metaloss(*command.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "a class for every pixel" in err
    assert "one for every image" in err


def test_it_is_listed_as_what_it_is(metaloss):
    code, out, _ = metaloss("list", "data", "voc")
    assert code == 0
    assert out.startswith("voc  Images with a class for every pixel")
