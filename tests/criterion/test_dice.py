"""Dice as segmentation libraries have it."""

import pytest
import torch

import metaloss
from metaloss.errors import SettingsError


def by_hand(p, y, valid):
    """The mean over classes of 1 - 2 Σ p y / (Σ p + Σ y), over the pixels that count."""
    found = []
    for c in range(p.shape[1]):
        a = p[:, c][valid]
        b = y[:, c][valid]
        found.append(1 - 2 * (a * b).sum() / max(float(a.sum() + b.sum()), 1e-7))
    return torch.stack(found).mean()


@pytest.mark.parametrize("ignored", [False, True])
def test_dice_is_one_minus_twice_the_overlap_per_class(ignored):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, generator=draw, dtype=torch.float64)
    target = torch.randint(4, (2, 3, 5), generator=draw)
    if ignored:
        target[0, 1] = 255
    valid = target != 255
    y = torch.nn.functional.one_hot(target.where(valid, 0), 4).movedim(-1, 1).double()
    found = metaloss.load("dice").with_options(ignore_index=255)(logits, target)
    torch.testing.assert_close(found, by_hand(logits.softmax(1), y, valid))
    if not ignored:
        torch.testing.assert_close(metaloss.load("Dice")(logits, y), found)


def test_a_sure_and_right_segmentation_costs_nothing():
    target = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = 100.0 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    assert metaloss.load("dice")(logits, target) < 1e-6


def test_a_class_that_is_nowhere_leaves_value_and_gradient_finite():
    logits = torch.full((1, 3, 2, 2), -200.0)
    logits[:, 0] = 200.0
    logits.requires_grad_()
    value = metaloss.load("dice")(logits, torch.zeros(1, 2, 2, dtype=torch.int64))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_ignored_pixels_count_for_nothing_even_where_their_logits_are_not_finite():
    target = torch.tensor([[[0, 1, 255]]])
    logits = torch.randn(1, 2, 1, 3, generator=torch.Generator().manual_seed(0))
    expected = metaloss.load("dice")(logits[..., :2], target[..., :2])
    logits[..., 2] = torch.nan
    torch.testing.assert_close(
        metaloss.load("dice").with_options(ignore_index=255)(logits, target), expected
    )


def test_a_class_s_weight_is_its_share_of_the_mean():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=draw)
    target = torch.randint(3, (2, 4, 4), generator=draw)
    loss = metaloss.load("dice")
    each = [loss.with_options(weight=torch.eye(3)[c])(logits, target) for c in range(3)]
    found = loss.with_options(weight=torch.tensor([1.0, 2.0, 5.0]))(logits, target)
    torch.testing.assert_close(found, (each[0] + 2 * each[1] + 5 * each[2]) / 8)
    torch.testing.assert_close(loss(logits, target), sum(each) / 3)


def test_it_has_no_sum_over_images():
    with pytest.raises(ValueError, match="reduction must be 'mean'"):
        metaloss.load("dice").with_options(reduction="sum")


def test_a_perfect_prediction_of_few_of_many_classes_costs_nothing():
    target = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = 100.0 * torch.nn.functional.one_hot(target, 21).movedim(-1, 1)
    assert metaloss.load("dice")(logits, target) == 0


def test_a_class_without_a_pixel_adds_nothing_to_the_mean_over_all_classes():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, generator=draw)
    target = torch.randint(3, (2, 3, 3), generator=draw)
    p = logits.softmax(1).movedim(1, -1).reshape(-1, 4)
    y = torch.nn.functional.one_hot(target.flatten(), 4)
    for smooth in (0.0, 1.0):
        each = [
            1 - (2 * (p[:, c] * y[:, c]).sum() + smooth) / (p[:, c] + y[:, c] + smooth / 18).sum()
            for c in range(3)
        ]
        found = metaloss.load(f"dice(smooth={smooth})")(logits, target)
        torch.testing.assert_close(found, sum(each) / 4)


@pytest.mark.parametrize("spec", ["dice", "dice()", "Dice(smooth=1)"])
def test_dice_is_loaded_described_and_exported_by_its_name(spec, tmp_path, monkeypatch, metaloss):
    monkeypatch.chdir(tmp_path)
    name = "dice(smooth=1)" if "1" in spec else "dice"
    code, out, _ = metaloss("show", spec)
    assert code == 0
    assert f"loss       {name}\n" in out
    assert "reads a whole batch" in out
    for file in ("d/loss.json", "d.py", "d.pt2", "d.tex"):
        assert metaloss("export", spec, "-o", file)[0] == 0
    code, out, _ = metaloss("show", "d")
    assert code == 0
    assert f"loss       {name}\n" in out


def test_dice_refuses_parameters_that_it_has_not():
    for spec in ("dice(smooth=-1)", "dice(gamma=1)"):
        with pytest.raises(SettingsError, match="dice: "):
            metaloss.load(spec)


def test_the_list_of_losses_says_what_dice_reads(metaloss):
    code, out, _ = metaloss("list", "losses", "dice")
    assert code == 0
    assert "reads a whole batch" in out
    assert "smooth=0" in out
