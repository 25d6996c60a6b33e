"""A Lightning trainer of a user's own tells losses how far it is."""

import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import metaloss
from metaloss.errors import SettingsError

lightning = pytest.importorskip("lightning")
module = pytest.importorskip("metaloss.training.module")

IMAGES = TensorDataset(torch.eye(3).repeat(3, 1), torch.tensor([0, 1, 1]).repeat(3))


class Small(lightning.LightningModule):
    """A linear classifier that keeps what its loss has been told."""

    def __init__(self, loss):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.loss = loss
        self.seen = []

    def training_step(self, batch, _):
        images, label = batch
        if self.loss.clock is not None:
            self.seen.append(self.loss.clock.tolist())
        return self.loss(self.layer(images), label)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(callback, spec="-y*logp*(1 + t)", part=True, **more):
    loss = metaloss.load(spec)
    model = Small(loss)
    if not part:  # not a module's attribute, so no part of it
        model.__dict__["loss"] = model._modules.pop("loss")
    with module._quiet():
        trainer = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[callback(loss) if callable(callback) else callback],
            **{"max_epochs": 2, **more},
        )
        trainer.fit(model, DataLoader(IMAGES, batch_size=3))
    return model.seen


def told(steps, of):
    return [pytest.approx([step / of, math.log(of)]) for step in range(steps)]


def test_every_step_of_the_optimiser_is_told():
    assert fitted(metaloss.ClockCallback()) == told(6, 6)
    assert fitted(metaloss.ClockCallback(), max_epochs=-1, max_steps=4) == told(4, 4)


def test_a_loss_that_is_no_part_of_the_module_is_named():
    assert fitted(metaloss.ClockCallback(), part=False) == [pytest.approx([0.5, math.log(50)])] * 6
    assert fitted(metaloss.ClockCallback, part=False) == told(6, 6)


def test_more_steps_than_were_told_count_as_the_last():
    seen = fitted(metaloss.ClockCallback(steps=4))
    assert seen[:4] == told(4, 4)
    assert seen[4:] == [pytest.approx([1, math.log(4)])] * 2


def test_a_loss_without_a_clock_stays_as_it_is():
    assert fitted(metaloss.ClockCallback(), "ce") == []


def test_a_training_without_an_end_is_refused():
    with pytest.raises(SettingsError, match="does not say how many steps there will be"):
        fitted(metaloss.ClockCallback(), max_epochs=-1)
