"""Losses in programs that people train with: skorch, Lightning, a loop with mixup, a plain loop."""

import pickle
import warnings
from functools import partial

import pytest
import torch
from torch import nn

import metaloss
from metaloss.core.streams import Stream

CLASSES = 10


@pytest.fixture(scope="module")
def digits():
    """Images [N 64] in [0, 1] and labels: 600 to train with, 300 to test on."""
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x / 16, dtype=torch.float32)
    y = torch.tensor(y)
    return (x[:600], y[:600]), (x[600:900], y[600:900])


@pytest.fixture(autouse=True)
def seeded():
    """Clients draw from torch's global generator; it is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def classifier():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def accuracy(model, data):
    with torch.no_grad():
        return float((model(data[0]).argmax(-1) == data[1]).float().mean())


RATES = {
    "ce": 0.1,
    "a2": 0.1,
    "focal(gamma=1)": 0.1,
    "mse": 0.2,
    "gce": 0.2,
    "c1": 0.1,
    "sce": 0.1,
    "poly1": 0.1,
}


@pytest.mark.parametrize("spec", RATES)
def test_a_plain_loop_learns_digits(spec, digits):
    model = classifier()
    loss = metaloss.load(spec)
    step = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=RATES[spec], momentum=0.9)
    (x, y), test = digits
    assert accuracy(model, test) < 0.4
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(60):
            step.zero_grad()
            loss(model(x[rows]), y[rows]).backward()
            step.step()
    assert accuracy(model, test) > 0.8


def mixed(x, y, share, smoothing):
    """Images mixed with the batch in reverse, and their smoothed labels, as timm's Mixup does."""
    low = smoothing / CLASSES
    soft = torch.full((len(y), CLASSES), low).scatter(1, y[:, None], 1 - smoothing + low)
    return share * x + (1 - share) * x.flip(0), share * soft + (1 - share) * soft.flip(0)


@pytest.mark.parametrize("spec", ["ce", "a2", "focal(gamma=1)", "ngl"])
def test_a_loop_like_timm_s_with_mixup_and_smoothed_targets_learns_digits(spec, digits):
    model = classifier()
    train_loss = metaloss.load(spec)
    test_loss = metaloss.load(spec)
    step = torch.optim.AdamW(model.parameters(), lr=0.01)
    (x, y), (test_x, test_y) = digits
    before = test_loss(model(test_x), test_y).item()
    shares = Stream(0).at("mixup").uniform(200)
    for i in range(200):
        rows = torch.randint(len(x), (60,))
        images, target = mixed(x[rows], y[rows], float(shares[i]), 0.1)
        with torch.autocast("cpu", torch.bfloat16):
            value = train_loss(model(images), target)
        assert value.dtype == torch.float32
        step.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        step.step()
    assert accuracy(model, digits[1]) > 0.8
    assert test_loss(model(test_x), test_y).item() < before


def network(skorch, **options):
    return skorch.NeuralNet(
        classifier,
        optimizer=torch.optim.Adam,
        lr=0.02,
        max_epochs=6,
        batch_size=60,
        train_split=None,
        verbose=0,
        callbacks="disable",
        **options,
    )


def right(estimator, x, y):
    return float((estimator.predict(x).argmax(-1) == y).mean())


# skorch takes a module as criterion, but lets no search set one: there, give it what makes the
# module.
GRIDS = {
    "names": {"criterion__spec": ["ce", "a2", "focal(gamma=1)"]},
    "makers": {
        "criterion": [partial(metaloss.load, spec) for spec in ("ce", "a2", "focal(gamma=1)")]
    },
}


@pytest.mark.parametrize("what", GRIDS)
def test_scikit_learn_searches_over_losses_with_skorch(what, digits):
    skorch = pytest.importorskip("skorch")
    from sklearn.model_selection import GridSearchCV

    (x, y), test = digits
    start = {"criterion__spec": "ce"} if what == "names" else {}
    net = network(skorch, criterion=metaloss.load, **start)
    search = GridSearchCV(net, GRIDS[what], scoring=right, cv=2, error_score="raise").fit(
        x.numpy(), y.numpy()
    )
    assert len(search.cv_results_["params"]) == 3
    assert (search.cv_results_["mean_test_score"] > 0.7).all()
    best = search.best_estimator_
    assert right(best, test[0].numpy(), test[1].numpy()) > 0.8
    spec = (
        search.best_params_["criterion__spec"]
        if what == "names"
        else search.best_params_["criterion"].args[0]
    )
    assert str(best.criterion_) == str(metaloss.load(spec))


@pytest.mark.parametrize("spec", ["ce", "a2", "focal(gamma=1)"])
def test_skorch_takes_a_loss_as_criterion_and_clones_and_pickles_it(spec, digits):
    skorch = pytest.importorskip("skorch")
    from sklearn.base import clone

    (x, y), test = digits
    net = clone(network(skorch, criterion=metaloss.load(spec))).fit(x.numpy(), y.numpy())
    assert str(net.criterion_) == str(metaloss.load(spec))
    again = pickle.loads(pickle.dumps(net))
    assert (
        right(again, test[0].numpy(), test[1].numpy())
        == right(net, test[0].numpy(), test[1].numpy())
        > 0.8
    )


OPTIONS = {"weight": torch.linspace(1, 2, CLASSES), "label_smoothing": 0.1}


@pytest.mark.parametrize("name", OPTIONS)
def test_skorch_hands_the_options_of_a_loss_on(name, digits):
    skorch = pytest.importorskip("skorch")
    (x, y), _ = digits
    given = {f"criterion__{name}": OPTIONS[name]}
    net = network(skorch, criterion=metaloss.load, criterion__spec="focal(gamma=2)", **given)
    net.set_params(max_epochs=1).fit(x.numpy(), y.numpy())
    assert str(net.criterion_) == str(metaloss.load("focal(gamma=2)", **{name: OPTIONS[name]}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, and those of what it imports
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_lightning_module_trains_with_it_and_its_checkpoint_holds_nothing_more(digits, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.loss = (
                classifier(),
                metaloss.load("a2").with_options(label_smoothing=0.05),
            )

        def training_step(self, batch, index):
            return self.loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.02)

    module, (train, test) = Classifier(), digits
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*train), batch_size=60, shuffle=True
    )
    trainer = lightning.Trainer(
        max_epochs=8,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        precision="bf16-mixed",
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
        trainer.fit(module, batches)
        trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert accuracy(module.model, test) > 0.8
    held = torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith("model.") for name in held)
