"""What losses are told of the images that a network trains on."""

from pathlib import Path

import torch

import metaloss
from metaloss.core.reporting import Reporter
from metaloss.core.streams import Stream
from metaloss.training import session as training_session
from metaloss.training.images import open_images
from metaloss.training.losses import name_losses
from metaloss.training.session import TrainingSession
from metaloss.training.settings import resolve


def session(data, *losses, **settings):
    labels = [f"x{i}" for i in range(len(losses))]
    settings = resolve({"loss": labels, "data": "given", "model": "given", **settings})
    images = open_images(settings, torch.device("cpu"), data)
    named = name_losses(labels, losses, images.classes)
    return TrainingSession(
        Path(), settings, images, named, torch.device("cpu"), None, Reporter(), lambda: False
    )


def test_a_loss_is_told_how_many_images_of_each_class_are_trained_on(uneven):
    adjusted, plain = metaloss.load("balanced_softmax"), metaloss.load("focal")
    work = session(uneven, adjusted, plain, validation=0.2)
    rows = work.images.training_rows(None, Stream(0))
    counts = uneven.labels[rows].bincount(minlength=4)
    assert counts.unique().numel() > 1
    told, left = map(work.loss_module, work.losses)
    assert told.prior.tolist() == counts.tolist()
    assert left.prior is None
    assert adjusted.prior is None


def test_what_its_owner_told_it_stays(uneven):
    work = session(uneven, metaloss.load("balanced_softmax", prior=[1, 2, 3, 4]))
    assert work.loss_module(work.losses[0]).prior.tolist() == [1, 2, 3, 4]


def test_a_subset_has_as_many_of_every_class(uneven):
    work = session(uneven, metaloss.load("balanced_softmax"), subset="3-per-class")
    assert work.loss_module(work.losses[0]).prior.tolist() == [3, 3, 3, 3]


def test_a_network_trains_with_the_prior_of_its_images(uneven, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_session.figures, "curves", lambda *_: [])
    settings = {"epochs": 1, "batch": 16, "lr": 0.1, "validation": 0.2, "out": tmp_path}
    counts = session(uneven, metaloss.load("ce"), validation=0.2)
    rows = counts.images.training_rows(None, Stream(0))
    prior = uneven.labels[rows].bincount(minlength=4)
    one = metaloss.fit("vs", network, uneven, **settings)
    told = metaloss.fit(metaloss.load("vs", prior=prior), network, uneven, **settings)
    other = metaloss.fit("ce", network, uneven, **settings)
    weights = [fitted.model().state_dict().values() for fitted in (one, told, other)]
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not all(map(torch.equal, weights[0], weights[2]))
