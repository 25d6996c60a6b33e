"""What was answered to held-out images, which count once however often they are answered."""

import numpy as np
import pytest
import torch

from metaloss.core.proportions import wilson
from metaloss.core.streams import Stream
from metaloss.data.datasets import Dataset
from metaloss.experiments.recommendation.held_out_answers import (
    MATRIX,
    HeldOutAnswers,
    answer_record,
    independent_images,
)

# Images 5, 9 and 2 of the classes 0, 1 and 1; the last answer to 9 is of a training that diverged.
ROWS = torch.tensor([5, 5, 9, 9, 9, 9, 2, 2])
LABELS = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
ANSWERS = torch.tensor([0, 1, 1, 0, 0, -1, 2, 2])


def dataset(classes=3, images=10, groups=None, files=()):
    return Dataset(
        "folder:scans", torch.zeros(images, 1, 2, 2, dtype=torch.uint8), torch.zeros(images).long(),
        tuple("abcdefghij"[:classes]) if classes < 10 else tuple(map(str, range(classes))),
        torch.arange(images), torch.zeros(images).bool(), "made for this", None, files, groups,
    )  # fmt: skip


@pytest.fixture
def answers():
    return HeldOutAnswers.of(ROWS, LABELS, ANSWERS, 3)


def test_the_confusion_matrix_spreads_images_as_their_answers(answers):
    # Of 2 images 6 answers: one right, two for class 0, two for class 2, one of none.
    expected = torch.tensor([[0.5, 0.5, 0, 0], [2 / 3, 1 / 3, 2 / 3, 1 / 3], [0, 0, 0, 0]])
    torch.testing.assert_close(answers.confusion.float(), expected)
    assert answers.images.tolist() == [1, 2, 0]
    assert answers.recall[:2].tolist() == pytest.approx([1 / 2, 1 / 6])
    assert answers.recall[2].isnan()


def test_answers_are_told_by_image(answers):
    assert answers.rows.tolist() == [2, 5, 9]
    assert answers.wrong.tolist() == [1.0, 0.5, 0.75]
    assert answers.usual().tolist() == [2, 0, 0]  # of equals the first class
    assert answers.most_wrong() == [0, 2, 1]


def test_of_images_that_are_wrong_equally_often_the_hardest_come_first():
    rows, label = torch.arange(4), torch.zeros(4).long()
    some = HeldOutAnswers.of(rows, label, torch.tensor([1, 0, 1, 1]), 2)
    assert some.most_wrong() == [0, 2, 3]  # and the right one is not listed
    by_all = torch.tensor([0.2, 1.0, 0.9, 0.2], dtype=torch.double)
    assert some.most_wrong(by_all) == [2, 0, 3]


def test_more_answers_to_the_same_images_leave_the_interval_as_it_is():
    once = answer_record("ce", HeldOutAnswers.of(ROWS, LABELS, ANSWERS, 3), dataset())
    often = HeldOutAnswers.of(ROWS.repeat(50), LABELS.repeat(50), ANSWERS.repeat(50), 3)
    again = answer_record("ce", often, dataset())
    assert again["recall_interval"]["b"] == pytest.approx(once["recall_interval"]["b"])
    np.testing.assert_allclose(again["confusion"], once["confusion"])
    # Two images, of which one got twice the answers.
    assert once["recall_interval"]["b"] == pytest.approx(list(wilson(1 / 6, 36 / (16 + 4))))
    assert again["wrong"][0]["answers"] == 100


def test_the_interval_covers_the_recall_on_new_images():
    """Of 30 images, each as hard as it is, answered 12 times by trainings that agree mostly."""
    chance, covered = Stream(0), 0
    for repeat in range(400):
        key = chance.at(repeat)
        hard = key.at("hard").uniform(30) < 0.6  # the recall is 0.6 · 0.9 + 0.4 · 0.1
        right = (
            key.at("right").uniform(30 * 12).reshape(30, 12) < torch.where(hard, 0.9, 0.1)[:, None]
        )
        rows = torch.arange(30).repeat_interleave(12)
        found = HeldOutAnswers.of(rows, torch.zeros_like(rows), 1 - right.flatten().long(), 2)
        low, high = wilson(float(found.recall[0]), 30)
        covered += low <= 0.58 <= high
    assert covered >= 0.95 * 400


def test_images_of_one_group_count_the_less_the_more_alike_their_answers_are():
    rows, labels = torch.arange(12), torch.zeros(12).long()
    right = HeldOutAnswers.of(rows, labels, labels, 2)
    assert independent_images(right, None) == [12, 0]
    assert independent_images(right, rows // 3) == [4, 0]
    assert independent_images(right, rows.clamp(min=8)) == pytest.approx([144 / (81 + 3), 0])
    twice = HeldOutAnswers.of(rows.repeat(2), *[torch.zeros(24).long()] * 2, 2)
    assert independent_images(twice, rows // 3) == [4, 0]
    record = answer_record("ce", right, dataset(2, 12, rows // 3))
    assert record["recall_interval"]["a"] == list(wilson(1.0, 4))
    assert np.isnan(record["recall_interval"]["b"]).all()
    mixed = HeldOutAnswers.of(rows, labels, (rows % 3 > 0).long(), 2)
    alike = HeldOutAnswers.of(rows, labels, (rows % 6 > 2).long(), 2)
    assert 4 < independent_images(mixed, rows // 3)[0] < 12
    assert independent_images(alike, rows // 3)[0] == pytest.approx(4)


def test_a_record_names_images_by_their_files_or_rows(answers):
    names = [x["image"] for x in answer_record("ce", answers, dataset())["wrong"]]
    assert names == ["row 2", "row 9", "row 5"]
    files = tuple(f"b/{i}.png" for i in range(10))
    record = answer_record("ce", answers, dataset(files=files))
    assert record["wrong"][0] == {
        "image": "b/2.png", "row": 2, "class": "b", "answer": "c", "wrong": 1.0, "answers": 2,
    }  # fmt: skip
    assert record["diverged"] == pytest.approx([0, 1 / 3, 0])


def test_a_matrix_of_very_many_classes_is_left_out():
    rows = torch.arange(4)
    few, many = (
        answer_record("ce", HeldOutAnswers.of(rows, rows, rows, n), dataset(n))
        for n in (MATRIX, MATRIX + 1)
    )
    assert "confusion" in few
    assert "confusion" not in many
    assert many["recall"]["3"] == 1.0
