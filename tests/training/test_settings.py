"""Settings name what is wrong with them, and protocols are files that resolve."""

import tomllib

import pytest

import metaloss
from metaloss.errors import SettingsError
from metaloss.training import settings
from metaloss.training.models import check_model
from metaloss.training.settings import Augment, over, protocol, protocols, resolve

PAPERS = [
    "loss-report",
    "morgan-finetune",
    "morgan-surrogate",
    "morgan-wrn",
    "ngl-imagenet",
    "ngl-small",
    "ngl-voc",
]


def test_the_protocols_are_those_of_the_papers():
    assert protocols() == PAPERS


@pytest.mark.parametrize("name", PAPERS)
def test_a_protocol_names_losses_and_a_model_that_exist(name):
    chosen = resolve(protocol(name))
    check_model(chosen.model)
    assert all(metaloss.load(loss) for loss in chosen.loss)


@pytest.mark.parametrize("name", PAPERS)
def test_every_value_of_a_protocol_says_where_it_is_from(name):
    lines = (settings.PROTOCOLS / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if line and not line.startswith("#")]
    sources = [line.rpartition("# ")[2] for line in values]
    assert all(any(word in source for word in ("section", "table", "ours")) for source in sources)
    assert len(values) == len(tomllib.loads("\n".join(lines)))


def test_what_is_given_wins_over_a_protocol():
    chosen = resolve(
        protocol("morgan-surrogate", {"epochs": 3, "augment": {"kind": "all"}, "rates": [0.1, 0.2]})
    )
    assert (chosen.epochs, chosen.steps, chosen.lr, chosen.rates) == (3, None, None, (0.1, 0.2))
    assert (chosen.augment.kind, chosen.augment.patch, chosen.batch) == ("all", 16, 128)


@pytest.mark.parametrize("augment", ["cutout", {"kind": "cutout"}])
def test_another_augmentation_keeps_the_sizes_of_a_protocol(augment):
    chosen = resolve(protocol("morgan-finetune", {"augment": augment}))
    assert (chosen.augment.kind, chosen.augment.pad, chosen.augment.patch) == ("cutout", 28, 112)


def test_morgan_s_surrogate_is_as_printed():
    chosen = resolve(protocol("morgan-surrogate"))
    assert (chosen.model, chosen.steps, chosen.epoch_steps, chosen.warmup) == (
        "resnet9",
        20_000,
        500,
        1000,
    )
    assert (chosen.optimiser, chosen.lr, chosen.batch, chosen.schedule) == (
        "adam",
        0.001,
        128,
        "one_cycle",
    )


def test_the_table_resolves_to_the_same_settings():
    chosen = resolve({"loss": "a2", "augment": "cutout", "rates": 0.1, "subset": "5-per-class"})
    assert resolve(chosen.table()) == chosen
    assert (chosen.loss, chosen.augment.kind, chosen.rates, chosen.per_class) == (
        ("a2",),
        "cutout",
        (0.1,),
        5,
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"subset": "50"}, "expected a number and '-per-class', as '50-per-class', got '50'"),
        ({"augment": {"kind": "mix"}}, "augment.kind: "),
        ({"augment": {"alfa": 1}}, "unknown setting 'alfa'. Did you mean 'alpha'"),
        ({"loss": ["ce", "ce"]}, "a loss is given twice: ce, ce"),
        ({"momentum": 0.0}, "nesterov needs momentum above 0"),
        ({"lr": -1.0}, "lr: "),
        ({"validation": -0.1}, "validation: "),
    ],
)
def test_what_cannot_be_is_named(table, message):
    with pytest.raises(SettingsError) as caught:
        resolve(table)
    assert message in str(caught.value)


def test_an_unknown_protocol_gets_a_suggestion():
    with pytest.raises(
        SettingsError, match=r"unknown protocol 'morgan-wnr'\. Did you mean 'morgan-wrn'"
    ):
        protocol("morgan-wnr")


def test_a_length_or_a_rate_drops_its_twin():
    assert over({"epochs": 3, "lr": 0.1}, {"steps": 7, "rates": [0.2]}) == {
        "steps": 7,
        "rates": [0.2],
    }


@pytest.mark.parametrize(
    ("kind", "parts"),
    [("none", ""), ("base", "base"), ("mixup", "base mixup"), ("all", "base cutout mixup randaug")],
)
def test_an_augmentation_is_made_of_parts(kind, parts):
    augment = Augment(kind=kind)
    assert [x for x in ("base", "cutout", "mixup", "randaug") if augment.has(x)] == parts.split()


def test_each_optimiser_has_a_usual_rate():
    assert (resolve({}).rate, resolve({"optimiser": "adam"}).rate, resolve({"lr": 0.3}).rate) == (
        0.1,
        0.001,
        0.3,
    )
