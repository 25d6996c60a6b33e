"""A user's own folder of images is read, or one line names what is wrong in it."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaloss.data import datasets
from metaloss.data.datasets import _images
from metaloss.errors import DataError, DataWarning


def error(name):
    """The one line that loading ends with."""
    with pytest.raises(DataError) as caught:
        datasets.load(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def picture(path, size=(6, 4), mode="L", value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def scans(tmp_path):
    root = tmp_path / "scans"
    picture(root / "malign/b.png", value=7)
    picture(root / "malign/a.png", value=5)
    picture(root / "benign/c.bmp", value=3)
    return root


def test_a_folder_of_gray_images_is_read_in_the_order_of_names(scans):
    found = datasets.load(f"folder:{scans}")
    assert found.name == "folder:scans"
    assert found.classes == ("benign", "malign")
    assert found.labels.tolist() == [0, 1, 1]
    assert found.pixels.shape == (3, 1, 4, 6)
    assert found.pixels[:, 0, 0, 0].tolist() == [3, 5, 7]
    assert found.index.tolist() == [0, 1, 2]
    assert not found.test.any()
    assert found.origin == f"3 images of {scans}, as gray of 6x4 pixels"


def test_one_coloured_image_makes_all_rgb(scans):
    picture(scans / "benign/d.png", mode="RGB", value=(1, 2, 3))
    found = datasets.load(f"folder:{scans}")
    assert found.pixels.shape == (4, 3, 4, 6)
    assert found.pixels[1, :, 0, 0].tolist() == [1, 2, 3]
    assert found.pixels[0, :, 0, 0].tolist() == [3, 3, 3]


def test_images_come_to_the_median_size(scans):
    picture(scans / "benign/d.png", size=(60, 2), value=9)
    found = datasets.load(f"folder:{scans}")
    assert found.pixels.shape == (4, 1, 4, 6)
    assert (found.pixels[1] == 9).all()


def test_large_images_shrink_to_64_pixels_on_the_longer_side(tmp_path):
    for name in "ab":
        picture(tmp_path / f"big/{name}/0.png", size=(100, 200))
    assert datasets.load(f"folder:{tmp_path / 'big'}").pixels.shape == (2, 1, 64, 32)


def test_hidden_files_and_files_beside_the_classes_are_ignored(scans):
    by_systems = (
        "@eaDir/a.png",
        "benign/@eaDir/a.png",
        "__MACOSX/._a.png",
        "benign/._c.bmp",
        "benign/desktop.ini",
    )
    hidden = (
        "benign/.DS_Store",
        ".git/config",
        "benign/Thumbs.db",
        ".ipynb_checkpoints/a.png",
        "README.txt",
    )
    for name in (*hidden, *by_systems):
        (scans / name).parent.mkdir(exist_ok=True)
        (scans / name).write_text("no image")
    assert len(datasets.load(f"folder:{scans}").labels) == 3


def wide(path, values):
    """An image of numbers, 16-bit integers or 32-bit floats."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.mark.parametrize(
    ("highest", "white"),
    [(255, 255), (256, 1023), (1000, 1023), (4095, 4095), (10000, 16383), (40000, 65535)],
)
def test_sixteen_bits_are_scaled_by_what_all_files_use(tmp_path, highest, white):
    values = np.linspace(0, highest, 24).astype(np.uint16).reshape(4, 6)
    wide(tmp_path / "x/a/0.png", values)
    wide(tmp_path / "x/b/0.png", values // 2)
    with pytest.warns(DataWarning) as said:
        found = datasets.load(f"folder:{tmp_path / 'x'}")
    assert str(said[0].message) == (
        f"folder:x: 2 images have more than 8 bits and use values from 0 to {highest}: 0 becomes 0 "
        f"and {white} becomes "
        "255"
    )
    assert found.pixels.shape == (2, 1, 4, 6)
    assert found.pixels[0, 0].tolist() == np.round(values * 255.0 / white).tolist()
    assert found.pixels[1, 0].tolist() == np.round(values // 2 * 255.0 / white).tolist()


@pytest.mark.parametrize(
    ("low", "high", "black", "white"), [(0, 1, 0, 1), (-1000, 3000, -1000, 3000), (0, 80, 0, 255)]
)
def test_floats_are_scaled_by_what_all_files_use(tmp_path, low, high, black, white):
    values = np.linspace(low, high, 24, dtype=np.float32).reshape(4, 6)
    wide(tmp_path / "x/a/0.tiff", values)
    wide(tmp_path / "x/b/0.tiff", values[:, ::-1].copy())
    found = datasets.load(f"folder:{tmp_path / 'x'}")
    expected = np.round((values.astype(float) - black) / (white - black) * 255)
    assert np.abs(found.pixels[0, 0].numpy() - expected).max() <= 1
    assert found.pixels[1].flip(-1).equal(found.pixels[0])


def test_a_number_that_is_not_finite_is_refused(tmp_path):
    for name in "ab":
        wide(tmp_path / f"x/{name}/0.tiff", np.array([[0.5, np.nan]], dtype=np.float32))
    line = error(f"folder:{tmp_path / 'x'}")
    assert (
        line == f"{tmp_path}/x/a/0.tiff: pixels: found values that are not finite, expected numbers"
    )


def test_images_that_show_nothing_are_counted(tmp_path, metaloss):
    for name in "ab":
        for i in range(3):
            (tmp_path / f"x/{name}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), 9 * i, np.uint8)).save(tmp_path / f"x/{name}/{i}.png")
    Image.fromarray(np.array([[0, 0, 0, 80, 80, 80]] * 4, np.uint8)).save(tmp_path / "x/a/0.png")
    code, out, err = metaloss("data", "verify", f"folder:{tmp_path / 'x'}")
    assert code == 0
    assert "6 images" in out
    assert err == (
        "warning: folder:x: 5 of 6 images are constant: all pixels of one are alike; the images "
        "have 4 of 256 grey "
        "levels\n"
    )


def test_verify_takes_the_limit_of_pixels_that_its_message_names(scans, metaloss):
    code, out, err = metaloss("data", "verify", f"folder:{scans}", "--set", "max_pixels=3")
    assert (code, out) == (2, "")
    assert "--set max_pixels=" in err
    assert metaloss("data", "verify", f"folder:{scans}", "--set", "max_pixels=3000")[0] == 0
    assert (
        "unknown setting 'max_pixel'"
        in metaloss("data", "verify", f"folder:{scans}", "--set", "max_pixel=3")[2]
    )


def test_images_that_are_all_equal_are_an_error_of_somebody(tmp_path):
    for name in "ab":
        (tmp_path / f"x/{name}").mkdir(parents=True)
        Image.fromarray(np.arange(80, dtype=np.uint8).reshape(8, 10)).save(
            tmp_path / f"x/{name}/0.png"
        )
    with pytest.warns(DataWarning, match="^folder:x: all 2 images are equal$"):
        datasets.load(f"folder:{tmp_path / 'x'}")


def test_a_photograph_is_turned_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright: width and height are exchanged
    for name in "ab":
        (tmp_path / f"photos/{name}").mkdir(parents=True)
        Image.new("L", (6, 4)).save(tmp_path / f"photos/{name}/0.jpg", exif=turned)
    assert datasets.load(f"folder:{tmp_path / 'photos'}").pixels.shape == (2, 1, 6, 4)


@pytest.mark.parametrize(
    "content", [b"", b"words", "truncated"], ids=["empty", "text", "truncated"]
)
def test_an_unreadable_image_is_named(scans, content):
    path = scans / "benign/d.png"
    if content == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50), dtype=np.uint8)).save(
            path
        )
        content = path.read_bytes()[:1000]
    path.write_bytes(content)
    line = error(f"folder:{scans}")
    assert line.startswith(f"{path}: image: found none that can be read (")
    assert line.endswith("), expected an image file")


def test_a_folder_in_a_class_is_named(scans):
    (scans / "benign/deeper").mkdir()
    assert (
        error(f"folder:{scans}")
        == f"{scans}/benign/deeper: image: found a folder, expected an image file"
    )


def in_parts(root, **parts):
    """Class folders below the parts of a folder: names of classes, one image each."""
    for number, (part, classes) in enumerate(parts.items()):
        for i, name in enumerate(classes):
            picture(root / part / name / "0.png", value=100 * number + i)
    return root


@pytest.mark.parametrize(
    ("train", "test"), [("train", "test"), ("Training", "testing"), ("train", "valid")]
)
def test_the_part_to_test_on_is_the_official_test_split(tmp_path, train, test):
    root = in_parts(tmp_path / "set", **{train: "ab", test: "ab"})
    picture(root / train / "b/1.png", value=9)
    found = datasets.load(f"folder:{root}")
    assert found.classes == ("a", "b")
    assert found.test.tolist() == [False, False, False, True, True]
    assert found.labels.tolist() == [0, 1, 1, 0, 1]
    assert found.index.tolist() == [0, 1, 2, 0, 1]
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 9, 100, 101]
    assert found.files[2:4] == (f"{train}/b/1.png", f"{test}/a/0.png")
    assert found.origin == (
        f"3 images to train on ({train}) and 2 of an official test split ({test}) of {root}, "
        "as gray of 6x4 pixels"
    )


def test_of_three_parts_the_one_to_validate_on_is_trained_on(tmp_path):
    root = in_parts(tmp_path / "set", train="ab", val="ab", test="ab")
    found = datasets.load(f"folder:{root}")
    # Parts are written in this order: train, val, test.
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 100, 101, 200, 201]
    assert found.test.tolist() == [False] * 4 + [True] * 2
    assert found.origin.startswith("4 images to train on (train and val) and 2 of an official test")


def test_the_common_size_is_that_of_the_images_to_train_on(tmp_path):
    root = in_parts(tmp_path / "set", train="ab")
    for name in "ab":
        for i in range(5):
            picture(root / "test" / name / f"{i}.png", size=(20, 30), value=i)
    assert datasets.load(f"folder:{root}").pixels.shape == (12, 1, 4, 6)


def test_files_of_a_size_have_the_same_split_as_images_in_memory(tmp_path):
    root = in_parts(tmp_path / "set", train="ab", test="ab")
    files = datasets.files(f"folder:{root}", _images.ImageOptions(8))
    assert files.test.tolist() == datasets.load(f"folder:{root}").test.tolist()
    before = files.fingerprint()
    for part, other in (("train", "other"), ("test", "train"), ("other", "test")):
        (root / part).rename(root / other)
    assert datasets.files(f"folder:{root}", _images.ImageOptions(8)).fingerprint() == before
    picture(root / "train/b/2.png")
    in_train = datasets.files(f"folder:{root}", _images.ImageOptions(8)).fingerprint()
    (root / "train/b/2.png").rename(root / "test/b/2.png")
    assert datasets.files(f"folder:{root}", _images.ImageOptions(8)).fingerprint() != in_train


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (
            {"train": "abc", "test": "ab"},
            "ROOT/test: classes: c is in train alone; expected class folders of the same names in "
            "train and test",
        ),
        (
            {"train": ["coat", "shirt"], "val": ["Coat", "shirt"], "test": ["coat", "shirt"]},
            "ROOT/val: classes: coat is in train alone, and Coat is in val alone; expected class "
            "folders of the same names in train and val",
        ),
        (
            {"train": "ab", "training": "ab"},
            "ROOT: parts: found train and training, which mean the same; expected one of them",
        ),
        (
            {"val": "ab", "test": "ab"},
            "ROOT: parts: found test, val, expected train, too: images to train on",
        ),
        (
            {"train": "ab", "test": "ab", "masks": "ab"},
            "ROOT: parts: found class folders in test, train, and masks beside them; expected "
            "parts that all have the same class folders: move masks elsewhere",
        ),
        (
            {"train": "ab"},
            "ROOT: classes: found 1 (train), expected at least 2 sub-folders, one per class; train "
            "has sub-folders: is it folder:ROOT/train?",
        ),
    ],
)
def test_parts_that_do_not_go_together_are_an_error(tmp_path, parts, line):
    root = in_parts(tmp_path / "set", **parts)
    assert error(f"folder:{root}") == line.replace("ROOT", str(root))


def noise(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(256, size=(9, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("options", [_images.ImageOptions(), _images.ImageOptions(size=8)])
def test_an_image_in_both_splits_is_refused_by_its_names(tmp_path, options):
    root = tmp_path / "set"
    for i, part in enumerate(("train", "test")):
        for c, name in enumerate("ab"):
            noise(root / part / name / "0.png", 10 * i + c)
            # Images of one colour are no copies.
            picture(root / part / name / "1.png", value=0)
    assert len(datasets.load(f"folder:{root}", options).labels) == 8
    noise(root / "test/b/2.png", 0)
    with pytest.raises(DataError) as caught:
        datasets.load(f"folder:{root}", options)
    assert str(caught.value) == (
        "folder:set: 1 image to test on is a copy of one to train on (test/b/2.png = "
        "train/a/0.png), which tests nothing new: remove one of each pair"
    )


def test_images_without_classes_cannot_be_a_test_split(tmp_path):
    root = in_parts(tmp_path / "set", train="ab")
    picture(root / "test/0.png")
    assert error(f"folder:{root}") == (
        f"{root}: parts: found class folders in train, and no class folders in test, so its images "
        "have no classes; expected parts that all have the same class folders: move test elsewhere"
    )


def test_classes_may_be_called_like_parts_of_a_data_set(tmp_path):
    for name in ("test", "train"):
        picture(tmp_path / "lab" / name / "0.png")
    assert datasets.load(f"folder:{tmp_path / 'lab'}").classes == ("test", "train")


def test_a_folder_and_an_image_that_cannot_be_read_end_alike(scans, metaloss, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    for where, line in (
        (Path, f"{scans}: folder: cannot be read (Permission denied), expected a folder of images"),
        (
            _images,
            f"{scans}/benign/c.bmp: image: found none that can be read (Permission denied), "
            "expected an image file",
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, "iterdir" if where is Path else "open_regular", refuse)
            code, out, err = metaloss("data", "verify", f"folder:{scans}")
        assert (code, out, err) == (2, "", f"error: {line}\n")


def test_a_pipe_among_the_images_is_not_waited_for(scans):
    os.mkfifo(scans / "benign/d.png")
    line = error(f"folder:{scans}")
    assert line.startswith(
        f"{scans}/benign/d.png: image: found none that can be read (found a FIFO"
    )


def test_one_class_is_too_few(tmp_path):
    picture(tmp_path / "scans/only/0.png")
    line = error(f"folder:{tmp_path / 'scans'}")
    assert line.endswith(
        "scans: classes: found 1 (only), expected at least 2 sub-folders, one per class"
    )


def test_an_empty_class_is_named(scans):
    (scans / "unclear").mkdir()
    assert error(f"folder:{scans}") == f"{scans}/unclear: images: found none, expected at least 1"


def test_a_missing_folder_is_named(tmp_path):
    line = error(f"folder:{tmp_path / 'nowhere'}")
    assert line == f"{tmp_path / 'nowhere'}: folder: found none, expected a folder of images"


def test_verify_says_that_there_is_no_test_split(scans):
    assert "(no official test split)" in datasets.verify(f"folder:{scans}")[2]
