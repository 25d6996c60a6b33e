"""Published tables are whole, hold the printed numbers, and name known losses and protocols."""

import math

import pytest
import torch

import metaloss
from metaloss.core import registry
from metaloss.data import datasets
from metaloss.errors import SettingsError
from metaloss.experiments.reproduction import published
from metaloss.training.models import check_model
from metaloss.training.settings import protocol, protocols, resolve

# Rows and columns of every table of full-size trainings, counted in the papers.
SHAPES = {
    "loss-report": (4, 1),
    "morgan-caltech": (4, 5),
    "morgan-cars": (11, 5),
    "morgan-cifar10": (18, 5),
    "morgan-cifar100": (18, 5),
    "morgan-flowers": (4, 5),
    "ngl-imagenet": (5, 4),
    "ngl-pretrained": (9, 8),
    "ngl-scratch": (9, 8),
    "ngl-voc": (4, 2),
}
# Read in the papers and typed here.
CELLS = [
    ("morgan-cifar10", "CE", "base", 94.116, 0.238),
    ("morgan-cifar10", "A2_0.10", "all", 96.418, 0.19),
    ("morgan-cifar10", "R0", "mixup", 93.136, 0.404),
    ("morgan-cifar100", "CE_0.10", "randaug", 76.522, 0.871),
    ("morgan-cifar100", "B1", "base", 21.852, 0.893),
    ("morgan-cifar100", "A2_0.10", "all", 81.728, 0.809),
    ("morgan-cars", "C0", "base", 53.212, 34.32),
    ("morgan-cars", "M2", "all", 11.8, 1.122),
    ("morgan-flowers", "A2", "cutout", 89.855, 0.663),
    ("morgan-caltech", "CE", "randaug", 90.595, 0.308),
    ("morgan-caltech", "A2_0.10", "mixup", 90.986, 0.394),
    ("ngl-scratch", "CE", "malaria", 94.0, None),
    ("ngl-scratch", "CE", "mean", None, None),
    ("ngl-scratch", "NGL", "caltech101", 5.0, None),
    ("ngl-scratch", "f3", "colorectal", -62.45, None),
    ("ngl-scratch", "SCE", "mean", -0.58, None),
    ("ngl-pretrained", "f4", "mean", 3.33, None),
    ("ngl-pretrained", "Focal", "cifar100", -3.18, None),
    ("ngl-pretrained", "NGL", "pcam", 7.07, None),
    ("ngl-imagenet", "NGL", "resnet152", 78.99, None),
    ("ngl-imagenet", "original", "swin_s", 83.0, None),
    ("ngl-voc", "Dice", "U-Net", 46.1, None),
    ("ngl-voc", "NGL", "DeepLabv2", 76.7, None),
    ("loss-report", "CE", "cifar10", None, None),
]
TRAININGS = pytest.mark.parametrize("name", SHAPES)


def test_the_folder_holds_the_papers_tables():
    assert published.names() == sorted([*SHAPES, "mln", "morgan-tau"])
    assert all(published.about(name).endswith(").") for name in published.names())


@TRAININGS
def test_a_table_has_as_many_rows_and_columns_as_printed(name):
    table = published.read(name)
    assert (len(table.rows), len(table.columns)) == SHAPES[name]
    assert len({row.name for row in table.rows}) == len(table.rows)
    assert all(0 <= x <= 100 for row in table.rows for x in row.std)
    assert table.note
    assert "\n" not in table.note
    assert "arXiv" in table.source or "report" in table.source


@pytest.mark.parametrize(("name", "row", "column", "mean", "std"), CELLS)
def test_cells_hold_the_printed_numbers(name, row, column, mean, std):
    table = published.read(name)
    rows = {x.name: x for x in table.rows}
    columns = {x.name: x for x in table.columns}
    assert table.printed(rows[row], columns[column]) == (mean, std)


# Sums of all means, added up over the papers' own tables.
SUMS = {
    **{
        "morgan-cifar10": 8546.404,
        "morgan-cifar100": 5448.758,
        "morgan-cars": 4483.192,
        "morgan-flowers": 1832.937,
    },
    **{"morgan-caltech": 1827.54, "ngl-scratch": 359.44, "ngl-pretrained": 641.54},
}


@pytest.mark.parametrize(("name", "total"), SUMS.items())
def test_no_number_of_a_table_was_mistyped(name, total):
    table = published.read(name)
    found = sum(x for row in table.rows for x in row.mean if not math.isnan(x))
    assert found == pytest.approx(total, abs=1e-6)


@TRAININGS
def test_losses_settings_and_protocols_of_a_table_exist(name):
    table = published.read(name)
    assert table.protocol in protocols()
    assert all(metaloss.load(row.loss) for row in table.rows if row.loss)
    for column in table.columns:
        for part in table.parts:
            chosen = resolve(protocol(table.protocol, column.settings, part))
            check_model(chosen.model)
            assert chosen.data in (*datasets.names(), "voc")


def test_what_has_no_formula_here_says_why():
    rows = {row.name: row.cannot for row in published.read("ngl-scratch").rows}
    assert [x for x, why in rows.items() if why == "formula lost, cannot be run"] == [
        "f1",
        "f2",
        "f3",
        "f4",
    ]
    assert "strength" in rows["CE+L2"]
    assert not rows["NGL"]


@pytest.mark.parametrize(
    ("name", "smoothed"), [("ce", "label_smoothing(alpha=0.1)"), ("a2", "a2_smoothed(alpha=0.1)")]
)
def test_the_smoothed_losses_are_the_plain_ones_of_smoothed_targets(name, smoothed):
    logits = torch.linspace(-3, 3, 40).reshape(4, 10).sin() * 4
    target = torch.tensor([0, 3, 9, 3])
    expected = metaloss.load(name).with_options(label_smoothing=0.1)(logits, target)
    torch.testing.assert_close(metaloss.load(smoothed)(logits, target), expected)


def test_correlations_are_those_printed_for_every_two_of_five_augmentations():
    table = published.read("morgan-tau")
    assert len(table.pairs) == 10
    assert [set(x) for x in table.all.values()] == [set(x) for x in table.both.values()]
    assert (table.all["base"]["cutout"], table.all["randaug"]["all"]) == (0.773, 0.677)
    assert (table.both["base"]["all"], table.both["cutout"]["randaug"]) == (0.042, 0.590)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rows": [{"name": "CE", "loss": "ce", "mean": [1.0, 2.0]}]},
            "row 'CE' needs a number for each of 1 columns",
        ),
        ({"rows": [{"name": "CE"}]}, "row 'CE' needs a loss, or a reason"),
        ({"colums": []}, "unknown setting 'colums'. Did you mean 'columns'"),
    ],
)
def test_a_table_that_is_not_whole_is_refused(changes, message):
    table = {"source": "a", "protocol": "b", "note": "c", "columns": [{"name": "x"}], "rows": []}
    with pytest.raises(SettingsError) as caught:
        registry.from_table(published.TrainingsTable, {**table, **changes}, "table x")
    assert message in str(caught.value)
