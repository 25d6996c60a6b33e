"""`metaloss train`: what it prints, what it leaves, and how it goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scans as small_images
import vocfolder

from metaloss import cli

FEW = [
    "warning: 2 images to validate: one answer is 50.0 points of accuracy, so a choice among "
    "rates or losses by them "
    "is mostly chance; --set validation=0.3 holds out more",
    "warning: 4 steps are few: the network may not have learned yet; more --epochs or --steps, "
    "or a smaller --batch",
]
QUICK = ("--model", "convnet", "--epochs", "2", "--batch", "8", "--lr", "0.1", "--device", "cpu")


@pytest.fixture(autouse=True)
def scans(tmp_path, monkeypatch):
    """A folder of twenty grey images, dark and bright ones."""
    monkeypatch.chdir(tmp_path)
    small_images.written(tmp_path, images=15, bright=170, dark=90, spread=40)
    return "folder:scans"


def test_losses_are_trained_alike_and_printed_side_by_side(metaloss, scans):
    losses = ("--loss", "ce", "-y * (1 - p) * logp", "--seeds", "2")
    code, out, err = metaloss("train", *losses, "--data", scans, *QUICK)
    assert code == 0
    assert err.splitlines()[:2] == FEW
    assert all(
        "the answer to every test image is the same class" in line for line in err.splitlines()[2:]
    )
    assert out.splitlines()[:2] == [
        "images  folder:scans: 30 of 2 classes (bright 15, dark 15)",
        "        more: metaloss data show folder:scans",
    ]
    lines = out.splitlines()[2:]
    assert lines[2].startswith(
        "steps   batch 8 (of 22 training images) · rate 0.1 · 4 steps: 2 epochs of 2"
    )
    assert lines[0].startswith("metaloss ")
    assert "convnet at 12x12" in lines[0]
    assert "4 trainings" in lines[0]
    assert lines[1].startswith("data    folder:scans: ")
    assert sum(" 2/2 " in line for line in lines) == 2 * 2, "the last epoch of every training"
    assert any(
        "n = 2, mean ± standard deviation over seeds; Δ: paired with ce" in line for line in lines
    )
    head = next(i for i, line in enumerate(lines) if line.startswith("loss ") and "Δ" in line)
    assert lines[head + 2].startswith("-y * (1 - p) * logp ")
    assert " ± " in lines[head + 2]
    folder = Path(lines[-1].split()[1])
    assert {x.name for x in (folder / "plots").iterdir()} >= {"accuracy.png", "loss.pdf", "f1.png"}


def test_groups_of_a_file_are_whole_in_one_share(metaloss, scans):
    names = sorted(f"{x.parent.name}/{x.name}" for x in Path("scans").glob("*/*"))
    table = Path("patients.csv")
    table.write_text("".join(f"{name},{n // 3}\n" for n, name in enumerate(names)))
    code, out, _ = metaloss("train", "--data", scans, "--groups", str(table), *QUICK)
    assert code == 0
    (line,) = [x for x in out.splitlines() if x.startswith("groups  ")]
    assert sum(map(int, re.findall(r"\d+", line))) == 10
    (folder,) = Path("trainings").iterdir()
    assert 'groups = "patients.csv"' in (folder / "config.toml").read_text()
    table.write_text(f"{names[0]},a\n")
    assert metaloss("train", "--resume", str(folder), "--groups", str(table))[0] == 0
    code, _, err = metaloss("train", "--data", scans, "--groups", str(table), *QUICK)
    assert (code, err.count("\n")) == (2, 1)
    assert "patients.csv: 29 of 30 images have no group" in err


def test_the_first_lines_say_how_many_images_are_trained_on_and_no_name_that_fits_is_cut(
    metaloss, scans
):
    loss = ("--loss", "label_smoothing(alpha=0.3)")
    _, out, _ = metaloss(
        "train", *loss, "--data", scans, *QUICK[:2], "--steps", "2", "--subset", "5-per-class"
    )
    lines = out.splitlines()[2:]
    assert "1 training ·" in lines[0]
    assert "10 images to train on (5-per-class, of 22), " in lines[1]
    assert "batch 2 (of 10 training images)" in lines[2]
    assert lines[5].startswith("label_smoothing(alpha=0.3) ")
    assert len(lines[4]) == len(lines[5])


def test_json_is_all_that_is_printed_where_it_is_asked_for(metaloss, scans):
    code, out, _ = metaloss(
        "train", "--data", scans, *QUICK, "--augment", "all", "--set", "augment.patch=4", "--json"
    )
    table = json.loads(out)
    assert code == 0
    assert table["table"][0]["loss"] == "ce"
    assert (
        'kind = "all"\npad = 4\nflip = true\npatch = 4'
        in (Path(table["folder"]) / "config.toml").read_text()
    )


def test_a_config_makes_the_same_training_and_flags_win_over_it(metaloss, scans):
    _, out, _ = metaloss("train", "--data", scans, *QUICK, "--json")
    first = json.loads(out)
    _, out, _ = metaloss("train", "--config", f"{first['folder']}/config.toml", "--json")
    assert json.loads(out)["table"] == first["table"]
    _, out, _ = metaloss(
        "train", "--config", f"{first['folder']}/config.toml", "--steps", "3", "--json"
    )
    assert (Path(json.loads(out)["folder"]) / "config.toml").read_text().count("steps = 3") == 1


def test_a_protocol_is_a_start_and_flags_win_over_it(metaloss, scans):
    flags = ("--data", scans, "--epochs", "1", "--seeds", "1", "--lr", "0.1", "--json")
    code, out, _ = metaloss("train", "--protocol", "loss-report", *flags)
    assert code == 0
    assert [row["loss"] for row in json.loads(out)["table"]] == [
        "ce",
        "focal(gamma=0.5)",
        "focal(gamma=2)",
        "mae",
    ]


def test_a_contact_sheet_is_drawn_and_nothing_is_trained(metaloss, scans):
    code, out, _ = metaloss("train", "--data", scans, "--contact-sheet", "sheet.png")
    assert (code, out) == (0, "wrote sheet.png\n")
    assert Path("sheet.png").stat().st_size > 1000
    assert not Path("trainings").exists()


def test_a_contact_sheet_of_masks_is_drawn_too(metaloss, tmp_path):
    vocfolder.write(tmp_path / "tiny")
    line = (
        "--data",
        "voc:tiny",
        "--model",
        "fcn_small",
        "--size",
        "16",
        "--contact-sheet",
        "sheet.png",
    )
    assert metaloss("train", *line)[:2] == (0, "wrote sheet.png\n")
    assert Path("sheet.png").stat().st_size > 1000
    assert not Path("trainings").exists()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            ("--model", "resnet81"),
            "error: unknown model 'resnet81'. Did you mean 'resnet18'?  (metaloss list models)",
        ),
        (("--data", "folder:none"), "error: none: folder: found none, expected a folder of images"),
        (
            ("--resume", "x"),
            "error: no training 'x': neither a training's folder nor a training under trainings",
        ),
        (("--resume", "x", "--protocol", "y"), "error: --resume keeps the training's settings"),
        (
            ("--protocol", "ngl-smal"),
            "error: unknown protocol 'ngl-smal'. Did you mean 'ngl-small'?  "
            "(metaloss list protocols)",
        ),
        (
            ("--epochs", "1", "--steps", "3"),
            "error: epochs and steps both give the length, got 1 and 3: give one",
        ),
        (
            ("--set", "lr=0.1", "rates=[0.1]"),
            "error: lr and rates both give the learning rate, got 0.1 and [0.1]",
        ),
        (
            ("--set", "augment=3"),
            "error: train: augment: Input should be a table of settings, got 3",
        ),
        (
            ("--data", "folder:scans", *QUICK[:2], "--steps", "2", "--set", "warmup=9"),
            "error: warmup must be below the 2 steps of this training, got 9",
        ),
        (("--contact-sheet", "x.gif"), "error: --contact-sheet writes a PNG: F.png, got 'x.gif'"),
        (
            ("--batch", "9", "--devices", "2"),
            "error: batch: the 9 images of a step cannot be cut in equal parts for 2",
        ),
        (("--subset", "50"), "error: train: subset: expected a number and '-per-class'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(metaloss, args, line):
    code, out, err = metaloss("train", *args)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert not Path("trainings").exists()


@pytest.mark.parametrize(
    ("kind", "name"), [("models", "wrn-28-10"), ("protocols", "morgan-wrn"), ("data", "pcam")]
)
def test_models_protocols_and_data_are_listed(metaloss, kind, name):
    code, out, _ = metaloss("list", kind)
    about = next(line for line in out.splitlines() if line.startswith(f"{name} "))
    assert code == 0
    assert len(about) > len(name) + 10


def test_ctrl_c_leaves_a_training_that_goes_on_to_the_same_result(metaloss, scans):
    """In a process of its own: the signal goes to all of it."""
    flags = [
        "train",
        "--data",
        scans,
        *QUICK[:2],
        "--batch",
        "8",
        "--device",
        "cpu",
        "--epochs",
        "150",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "metaloss", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parent.parent.parent)},
    ) as process:
        # Lines of quick epochs are few; the first checkpoint says that it trains.
        while process.poll() is None and not list(Path("trainings").glob("*/state/*/last.ckpt")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        err = process.stderr.read()
        assert process.wait() == 130
    assert (
        "interrupted; go on with: metaloss train --resume trainings/folder_scans-convnet-ce" in err
    )
    code, out, _ = metaloss("train", "--resume", "folder_scans-convnet-ce", "--json")
    _, whole, _ = metaloss(*flags, "--json")
    assert code == 0
    assert json.loads(out)["table"] == json.loads(whole)["table"]
