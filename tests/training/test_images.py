"""Images are cut into shares that never mix, and batches are a function of seed and step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from metaloss.core.streams import Stream
from metaloss.data import datasets
from metaloss.data.pools import pools
from metaloss.errors import DataError, SettingsError
from metaloss.training.images import in_memory, moments, open_images
from metaloss.training.sampling import batch_order
from metaloss.training.settings import resolve
from metaloss.training.shares import split_shares

CPU = torch.device("cpu")


def material(shapes, **table):
    return in_memory(shapes, resolve(table), CPU)


# --- shares ---


def test_the_official_test_split_is_the_test_share_and_no_image_is_in_two_shares(shapes):
    shares = split_shares(shapes, 0.2, Stream(0))
    assert torch.equal(shares.test, shapes.test.nonzero()[:, 0])
    all_rows = torch.cat([shares.train, shares.validation, shares.test])
    assert torch.equal(all_rows.sort().values, torch.arange(120))


def test_a_share_of_every_class_is_held_out(shapes):
    shares = split_shares(shapes, 0.2, Stream(0))
    per_class = shapes.labels[~shapes.test].bincount()
    assert (
        shapes.labels[shares.validation].bincount().tolist()
        == (0.2 * per_class).round().long().tolist()
    )


def test_what_is_held_out_follows_the_seed(shapes):
    one, same, other = (split_shares(shapes, 0.2, Stream(seed)).validation for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_without_an_official_test_split_the_test_share_is_meta_test(dataset):
    shares = split_shares(dataset, 0.2, Stream(0))
    assert torch.equal(shares.test, torch.cat(pools(dataset)["test"].rows).sort().values)
    assert len(shares.test) == 24


def test_a_class_with_too_few_images_is_named(shapes):
    few = replace(shapes, test=(shapes.labels == 2) & (torch.arange(120) != 2))
    with pytest.raises(
        DataError, match="c has 1 image; every class needs at least 2 beside the test images: leave"
    ):
        split_shares(few, 0.2, Stream(0))


def test_a_subset_has_so_many_of_every_class_and_only_of_the_training_share(shapes):
    found = material(shapes)
    rows = found.training_rows(5, Stream(0))
    assert shapes.labels[rows].tolist().count(3) == 5
    assert len(rows) == 20
    assert set(rows.tolist()) < set(found.shares.train.tolist())
    assert not torch.equal(rows, found.training_rows(5, Stream(1)))
    assert torch.equal(found.training_rows(None, Stream(0)), found.shares.train)


def test_a_subset_larger_than_a_class_is_refused(shapes):
    with pytest.raises(
        SettingsError, match="subset: class 'c' has 20 images to train on, asked for 21"
    ):
        material(shapes).training_rows(21, Stream(0))


def test_colours_are_measured_on_the_training_share(shapes):
    found = material(shapes)
    pixels = shapes.pixels[found.shares.train].numpy() / 255
    assert found.mean == pytest.approx([pixels.mean()])
    assert found.std == pytest.approx([pixels.std()])


def test_a_channel_of_one_colour_is_left_at_its_scale():
    assert moments(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8), torch.arange(3)) == (
        (pytest.approx(0.2),),
        (1.0,),
    )


# --- batches ---


def test_every_pass_shows_every_image_once():
    rows = torch.arange(100, 112)
    passes = batch_order(rows, 4, Stream(0), 0, 6).reshape(2, 12)
    assert all(torch.equal(x.sort().values, rows) for x in passes)
    assert not torch.equal(*passes)


def test_steps_do_not_depend_on_where_one_begins():
    rows = torch.arange(10)
    whole = batch_order(rows, 4, Stream(0), 0, 7)
    assert torch.equal(
        torch.cat([batch_order(rows, 4, Stream(0), 0, 3), batch_order(rows, 4, Stream(0), 3, 4)]),
        whole,
    )
    assert len(whole) == 28


def test_resident_batches_are_the_images_at_the_rows(shapes):
    source = material(shapes).source
    rows = torch.tensor([5, 0, 7])
    batches = list(source.batches(rows, 2))
    assert [len(labels) for _, labels in batches] == [2, 1]
    assert torch.equal(torch.cat([x for x, _ in batches]), shapes.pixels[rows])
    assert torch.cat([y for _, y in batches]).tolist() == [1, 0, 3]


@pytest.fixture
def folder(tmp_path):
    """ImageNet's folders, with tiny pictures of several sizes."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 2)):
        for name in ("n01", "n02"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (16 + i, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_images_are_the_resident_ones(folder, workers):
    table = {"data": f"imagenet:{folder}", "size": 16, "validation": 0.3, "workers": workers}
    held = open_images(resolve(table), CPU)
    read = open_images(resolve({**table, "resident": 0}), CPU)
    assert held.source.pixels.shape == (16, 3, 16, 16)
    assert torch.equal(held.shares.train, read.shares.train)
    one, other = (list(x.source.batches(x.shares.train, 3)) for x in (held, read))
    assert all(
        torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(one, other, strict=True)
    )


def test_the_embedded_subset_is_cut_like_any_set(monkeypatch, tmp_path):
    from metaloss.data.datasets import fashionmnist

    monkeypatch.setattr(fashionmnist, "SYSTEM", tmp_path)
    monkeypatch.setenv("METALOSS_DATA", str(tmp_path))
    found = open_images(resolve({"subset": "50-per-class"}), CPU)
    assert [len(x) for x in (found.shares.train, found.shares.validation, found.shares.test)] == [
        6300,
        700,
        3000,
    ]
    assert found.dataset.fingerprint() == datasets.load("fashionmnist").fingerprint()
