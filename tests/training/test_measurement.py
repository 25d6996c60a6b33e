"""Measures of a share are those of scikit-learn."""

import math

import pytest
import torch
from torch import nn

from metaloss.core.streams import Stream
from metaloss.training.measurement import measure
from metaloss.training.models import ImageClassifier, NetworkShape


def looked_at(logits, labels):
    """The measures of a classifier that gives these logits, seen in batches of 7."""
    n, classes = logits.shape
    answers = nn.Embedding.from_pretrained(logits)
    network = nn.Sequential(nn.Flatten(0), answers)
    shape = NetworkShape(1, (1, 1), classes)
    classifier = ImageClassifier(network, shape, [0.0], [1 / 255], repeat=False)
    network[0].forward = lambda x: x.flatten().long()
    images = torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1)
    batches = zip(images.split(7), labels.split(7), strict=True)
    return measure(classifier, nn.CrossEntropyLoss(), batches)


def test_recall_and_balanced_accuracy_are_scikit_learn_s():
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score

    logits = Stream(0).at("z").normal(60, 4)
    labels = Stream(0).at("y").integers(4, 60)
    found = looked_at(logits, labels)
    choice = logits.argmax(1)
    assert found.recall == pytest.approx(recall_score(labels, choice, average=None).tolist())
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, choice))
    assert found.f1 == pytest.approx(f1_score(labels, choice, average="macro"))
    assert found.answered == tuple(confusion_matrix(labels, choice).sum(0).tolist())
    assert found.only_answer is None


def test_a_class_without_an_image_is_left_out_of_the_mean():
    logits = 9 * torch.eye(3)[[0, 2, 1, 2]]
    found = looked_at(logits, torch.tensor([0, 0, 1, 1]))
    assert found.recall[:2] == (0.5, 0.5)
    assert math.isnan(found.recall[2])
    assert found.balanced_accuracy == 0.5


def test_the_only_answer_is_known():
    found = looked_at(torch.tensor([[0.0, 1.0]]).expand(5, 2), torch.tensor([0, 1, 1, 1, 1]))
    assert (found.only_answer, found.recall, found.balanced_accuracy) == (1, (0.0, 1.0), 0.5)


def test_logits_that_are_not_finite_have_no_recall():
    found = looked_at(
        torch.tensor([[math.nan, 1.0]]).expand(5, 2), torch.ones(5, dtype=torch.int64)
    )
    assert math.isnan(found.balanced_accuracy)
    assert all(map(math.isnan, found.recall))
    assert found.only_answer is None
    assert len(found.recall) == 2
