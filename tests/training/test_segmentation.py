"""Training on masks: ignored pixels count for nothing, masks move with images, mean IoU by hand."""

import csv
import json
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import vocfolder
from PIL import Image
from torch import nn

import metaloss
from metaloss import cli
from metaloss.core.streams import Stream
from metaloss.errors import DataError, DataWarning, Interrupted, SettingsError
from metaloss.training import figures, fitting, module, segmentation, session, sources
from metaloss.training.figures import contact_sheet
from metaloss.training.images import open_images
from metaloss.training.measurement import confusion
from metaloss.training.models import ImageClassifier, NetworkShape, outputs
from metaloss.training.segmentation import ignoring, overlaps, varied
from metaloss.training.settings import Augment, resolve
from metaloss.training.targets import SEGMENTATION

SMALL = {"epochs": 2, "batch": 4, "size": 16, "device": "cpu"}
CPU = torch.device("cpu")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A VOC folder's name, from the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "PAUSE", 0.0)
    vocfolder.write(tmp_path / "tiny")
    return "voc:tiny"


@pytest.fixture
def quick(monkeypatch):
    """Figures are most of a tiny training's time."""
    monkeypatch.setattr(session.figures, "curves", lambda *_: [])


def problem(shape=(2, 3, 4, 5)):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=draw)
    target = torch.randint(shape[1], (shape[0], *shape[2:]), generator=draw)
    target[0, 1], target[1, :, 2] = 255, 255
    return logits.requires_grad_(), target


class Square(nn.Module):
    """A loss that knows no class to ignore."""

    def forward(self, logits, target):
        return (logits.softmax(1) - nn.functional.one_hot(target, logits.shape[1])).square().mean()


# --- losses ---


@pytest.mark.parametrize(
    "spec", ["ce", "focal(gamma=2)", "ngl", "dice", nn.CrossEntropyLoss(), Square()], ids=str
)
def test_what_counts_for_nothing_has_no_value_and_no_gradient(spec):
    logits, target = problem()
    loss = ignoring(metaloss.load(spec))
    value = loss(logits, target)
    value.backward()
    counts = (target != 255)[:, None].expand_as(logits)
    assert (logits.grad[~counts] == 0).all()
    assert (logits.grad[counts] != 0).all()
    rows = logits.detach().movedim(1, -1)[target != 255]
    torch.testing.assert_close(value, metaloss.load(spec)(rows, target[target != 255]))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), Square()], ids=str)
def test_where_nothing_counts_a_loss_is_0_and_pulls_nowhere(loss):
    logits, target = problem()
    value = ignoring(loss)(logits, torch.full_like(target, 255))
    value.backward()
    assert float(value.detach()) == 0
    assert (logits.grad == 0).all()


def test_a_loss_is_told_in_a_copy():
    loss = nn.CrossEntropyLoss()
    assert ignoring(loss).loss.ignore_index == 255
    assert loss.ignore_index == -100


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), Square()], ids=str)
def test_images_of_which_no_pixel_counts_add_nothing(loss):
    logits, _ = problem()
    value = ignoring(loss)(logits, torch.full((2, 4, 5), 255))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


# --- what masks hold, before any training ---


def masks(root, array):
    """Write masks of the training list anew."""
    for name in (root / "ImageSets/Segmentation/train.txt").read_text().split():
        path = root / "SegmentationClass" / f"{name}.png"
        vocfolder.save(path, array(np.array(Image.open(path))))


def test_an_image_that_counts_for_nothing_is_named_before_training(tiny):
    path = Path("tiny/SegmentationClass/2007_000003.png")
    vocfolder.save(path, np.full_like(np.array(Image.open(path)), 255))
    with pytest.warns(DataWarning) as said:
        open_images(resolve({"data": tiny, **SMALL}), CPU)
    assert [str(x.message) for x in said] == [
        "voc:tiny: 1 of 10 images to train on teach nothing, all pixels of their masks are 255: "
        "2007_000003.png"
    ]


def test_a_class_without_a_pixel_to_train_on_is_named(tiny):
    masks(Path("tiny"), lambda x: np.where(x == 2, 0, x).astype(np.uint8))
    with pytest.warns(DataWarning, match="^voc:tiny: no mask to train on has a pixel of 'blue'$"):
        open_images(resolve({"data": tiny, **SMALL}), CPU)


def test_masks_of_one_class_are_refused_before_training(tiny):
    masks(Path("tiny"), lambda x: np.where(x == 1, 255, 0).astype(np.uint8))
    with pytest.raises(DataError) as caught:
        open_images(resolve({"data": tiny, **SMALL}), CPU)
    line = "voc:tiny: no mask to train on has a pixel of 'red', 'blue': found 0 and 255 alone"
    assert str(caught.value).startswith(line)


# --- images and masks ---


def scene():
    """Two images whose colour says which class a pixel has."""
    masks = torch.zeros(2, 12, 12, dtype=torch.uint8)
    masks[0, 2:7, 3:9], masks[1, 5:, :4] = 1, 2
    return (50 * masks)[:, None].repeat(1, 3, 1, 1), masks


@pytest.mark.parametrize("seed", range(5))
def test_images_and_masks_move_alike(seed):
    torch.manual_seed(seed)
    pixels, masks = scene()
    moved, labels = varied(pixels, masks, Augment("base", scale=(1.0, 1.0)))
    assert torch.equal(moved[:, 0], 50 * labels)
    moved, labels = varied(pixels, masks, Augment("base", scale=(0.5, 0.5)))
    assert moved.shape == pixels.shape
    assert labels.shape == masks.shape
    outside = labels == 255
    assert (outside.sum((1, 2)) == 144 - 36).all(), "half as high and as wide"
    assert (moved.movedim(1, -1)[outside] == torch.tensor(segmentation.COLOUR)).all()
    torch.manual_seed(seed)
    varied(pixels, masks, Augment("base", scale=(1.0, 1.0)))
    again = varied(pixels, masks, Augment("base", scale=(0.5, 0.5)))
    assert torch.equal(again[0], moved)
    assert torch.equal(again[1], labels)


def test_flips_are_drawn_for_every_pair_and_can_be_left_out():
    torch.manual_seed(0)
    pixels, masks = (x[1:].repeat(20, *[1] * (x.ndim - 1)) for x in scene())
    same = Augment("base", scale=(1.0, 1.0), flip=False)
    assert torch.equal(varied(pixels, masks, same)[1], masks)
    flipped = [
        not torch.equal(x, masks[0])
        for x in varied(pixels, masks, Augment("base", scale=(1.0, 1.0)))[1]
    ]
    assert 3 < sum(flipped) < 17
    assert varied(pixels, masks, Augment()) == (pixels, masks)


def test_shares_are_the_lists_and_a_part_of_the_first(tiny):
    found = open_images(resolve({"data": tiny, "validation": 0.3, "size": 16}), CPU)
    assert found.target is SEGMENTATION
    assert found.classes == 3
    assert found.shares.test.tolist() == [10, 11, 12, 13]
    assert len(found.shares.validation) == 3
    assert sorted([*found.shares.train.tolist(), *found.shares.validation.tolist()]) == list(
        range(10)
    )
    other = open_images(resolve({"data": tiny, "validation": 0.3, "size": 16, "seed": 1}), CPU)
    assert not torch.equal(other.shares.validation, found.shares.validation)


def test_what_is_read_batch_by_batch_is_what_lies_in_memory(tiny):
    table = {"data": tiny, "size": 16, "workers": 0}
    held, read = (open_images(resolve({**table, "resident": n}), CPU) for n in (1 << 20, 0))
    assert isinstance(held.source, sources.Resident)
    assert isinstance(read.source, sources.Streamed)
    for one, other in zip(
        *(x.source.batches(x.shares.train, 4) for x in (held, read)), strict=True
    ):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


# --- measures ---


def test_intersection_over_union_is_that_of_sets_of_pixels():
    label = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    choice = torch.tensor([0, 0, 0, 1, 1, 0, 0])
    ious, f1 = overlaps(confusion(choice, label, 4))
    torch.testing.assert_close(ious[:3], torch.tensor([3 / 6, 1 / 3, 0.0], dtype=torch.float64))
    torch.testing.assert_close(f1[:3], torch.tensor([6 / 9, 2 / 4, 0.0], dtype=torch.float64))
    assert ious[3].isnan()
    assert f1[3].isnan()


def test_measures_are_over_pixels_that_count_however_they_are_batched():
    logits, target = problem((4, 3, 6, 6))
    classifier = ImageClassifier(
        nn.Identity(), NetworkShape(3, (6, 6), 3), [0.0] * 3, [1 / 255] * 3, repeat=False
    )
    pixels = (40 * logits.detach()).clamp(0, 255).to(torch.uint8)
    z = pixels.float()
    counts = target != 255
    masks = target.to(torch.uint8)
    found, split = (
        segmentation.measure(
            classifier,
            ignoring(metaloss.load("ce")),
            zip(pixels.split(n), masks.split(n), strict=True),
        )
        for n in (4, 1)
    )
    choice = z.argmax(1)[counts]
    label = target[counts]
    by_hand = [
        float(((choice == c) & (label == c)).sum() / ((choice == c) | (label == c)).sum().double())
        for c in range(3)
    ]
    assert found.ious == pytest.approx(by_hand)
    assert found.iou == pytest.approx(sum(by_hand) / 3)
    assert found.accuracy == pytest.approx(float((choice == label).double().mean()))
    assert found.loss == pytest.approx(
        float(nn.functional.cross_entropy(z, target, ignore_index=255)), rel=1e-5
    )
    assert (split.ious, split.f1) == (found.ious, found.f1)
    assert split.loss == pytest.approx(found.loss, rel=1e-5)


def test_logits_that_are_not_finite_have_no_iou():
    classifier = ImageClassifier(
        nn.Identity(), NetworkShape(3, (2, 2), 3), [0.0] * 3, [0.0] * 3, repeat=False
    )
    batch = torch.ones(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8)
    found = segmentation.measure(classifier, ignoring(Square()), [batch])
    assert math.isnan(found.iou)
    assert math.isnan(found.accuracy)
    assert all(map(math.isnan, found.ious))


# --- trainings ---


def test_losses_are_set_beside_cross_entropy_by_mean_iou(tiny, capsys):
    losses = ("--loss", "ce", "focal(gamma=2)", "dice", "ngl")
    flags = [f"--{key}={x}" for key, x in SMALL.items()]
    with pytest.raises(SystemExit) as end:
        cli.main(
            ["train", *losses, "--data", tiny, "--model", "fcn_small", "--augment", "base", *flags]
        )
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert end.value.code == 0
    assert err.count("warning: ") == 2 == err.count("\n")
    assert "9 images to train on, 1 to validate, 4 to test; tiny, tested on its val.txt" in lines[1]
    assert "val mIoU" in lines[4]
    assert "Δ: mean IoU, paired with ce" in out
    table = lines[
        lines.index(next(x for x in lines if x.startswith("loss ") and "pixels right" in x)) + 1 :
    ]
    assert [x.split()[0] for x in table[:4]] == ["ce", "focal(gamma=2)", "dice", "ngl"]
    folder = fitting.Path(lines[-1].split()[1])
    assert (folder / "plots" / "iou.png").is_file()
    rows = list(csv.DictReader((folder / "epochs.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert all(0 <= float(row["val_iou"]) <= 1 for row in rows)
    summary = json.loads((folder / "summary.json").read_bytes())
    ce, focal = (x for x in summary["trainings"] if x["loss"] in ("ce", "focal(gamma=2)"))
    assert list(ce["iou_per_class"]) == ["ground", "red", "blue"]
    known = [x for x in ce["iou_per_class"].values() if x is not None]
    assert ce["iou"] == pytest.approx(sum(known) / len(known))
    assert summary["table"][1]["differences"] == [focal["iou"] - ce["iou"]]


def test_squares_are_found_and_the_model_that_comes_with_it_finds_them(tiny, quick):
    fitted = metaloss.fit("ce", "fcn_small", tiny, **{**SMALL, "size": 32, "epochs": 12, "lr": 0.1})
    assert fitted.iou[0] > 0.8
    assert fitted.mean == fitted.iou[0]
    assert fitted.accuracy[0] > 0.9
    held = open_images(resolve({"data": tiny, "size": 32}), CPU)
    pixels, masks = next(held.source.batches(held.shares.test, 4))
    logits, _ = outputs(fitted.model()(pixels))
    counts = masks != 255
    assert float((logits.argmax(1) == masks)[counts].double().mean()) == pytest.approx(
        fitted.accuracy[0]
    )


def test_a_rate_is_chosen_by_mean_iou(tiny, quick):
    fitted = metaloss.fit("ce", "fcn_small", tiny, rates=(1e-6, 0.1), **SMALL)
    assert [list(x) for x in fitted.tuning] == [["lr", "val_iou"]] * 2
    best = max(fitted.tuning, key=lambda x: x["val_iou"])
    assert fitted.lr == best["lr"]


def test_an_interrupted_training_resumes_to_the_same_bytes(tiny, quick):
    table = {"augment": "base", "seeds": 2, **SMALL}
    whole = metaloss.fit("dice", "fcn_small", tiny, **table)
    calls = []
    with pytest.raises(Interrupted):
        metaloss.fit(
            "dice", "fcn_small", tiny, stop=lambda: calls.append(0) or len(calls) == 7, **table
        )
    resumed = metaloss.fit(resume=f"{whole.folder.name}-2")
    for name in ("epochs.csv", "summary.json", "model-0.safetensors", "model-1.safetensors"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


class WithAuxiliary(nn.Module):
    """Gives what torchvision's models for segmentation give."""

    def __init__(self):
        super().__init__()
        self.main, self.side = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return {"out": self.main(x), "aux": self.side(x)}


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_an_auxiliary_output_learns_by_its_weight(tiny, quick, weight):
    start = WithAuxiliary()
    fitted = metaloss.fit("ce", start, tiny, auxiliary=weight, **SMALL)
    assert torch.equal(fitted.model().network.side.weight, start.side.weight) == (weight == 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "convnet"}, "voc:tiny has classes of pixels, and convnet tells images apart"),
        ({"model": "fcn_smal"}, "unknown model 'fcn_smal'. Did you mean 'fcn_small'"),
        ({"augment": "mixup"}, "augment 'mixup' does not go with masks; 'none' and 'base' do"),
        (
            {"subset": "2-per-class"},
            "subset counts images of a class, and in voc:tiny it is pixels that have one",
        ),
        (
            {"augment": {"kind": "base", "scale": (2.0, 0.5)}},
            "scale must be given as smallest and largest",
        ),
    ],
)
def test_what_does_not_go_with_masks_is_said(tiny, given, message):
    with pytest.raises(SettingsError) as caught:
        metaloss.fit(**{"loss": "ce", "model": "fcn_small", "data": tiny, **SMALL, **given})
    assert message in str(caught.value)


def test_a_model_for_pixels_is_refused_for_images(shapes):
    with pytest.raises(
        SettingsError, match="given has classes of images, and fcn_small tells pixels apart"
    ):
        metaloss.fit("ce", "fcn_small", (shapes.pixels, shapes.labels))


def test_a_missing_folder_is_said(tiny):
    with pytest.raises(DataError, match="voc: nowhere: found no VOC folder"):
        metaloss.fit("ce", "fcn_small", "voc:nowhere")


# --- the contact sheet ---


def test_a_contact_sheet_has_a_row_for_every_image(tiny):
    material = open_images(resolve({"data": tiny, "size": 16}), CPU)
    sheet = {n: contact_sheet(material, Augment(), Stream(0), images=n) for n in (1, 2)}
    (width, height), (other, taller) = (Image.open(BytesIO(png)).size for png in sheet.values())
    assert width == other
    assert taller > 1.5 * height
    assert sheet[1] == contact_sheet(material, Augment(), Stream(0), images=1)
    assert sheet[1] != contact_sheet(material, Augment(scale=(1.0, 1.0)), Stream(0), images=1)


def test_masks_lie_over_their_images_in_voc_s_colours():
    image = torch.full((3, 1, 3), 100, dtype=torch.uint8)
    shown = figures._overlaid(image, torch.tensor([[0, 15, 255]], dtype=torch.uint8))
    colours = torch.tensor([[0, 0, 0], [192, 128, 128], [224, 224, 192]])
    torch.testing.assert_close(510 * shown[:, 0].T, (100 + colours).float())
