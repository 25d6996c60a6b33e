"""A folder of small images with settings that train on it at once, and files of trainings."""

import scans

from metaloss import storage
from metaloss.training import module, session
from metaloss.training.settings import protocol, resolve

SCANS = {
    "data": "folder:scans",
    "model": "convnet",
    "steps": 4,
    "epoch_steps": 2,
    "batch": 4,
    "warmup": 1,
}


def surroundings(patch, folder):
    """Work in this folder, with forty grey images, dark and bright; no other data, no figures."""
    patch.chdir(folder)
    patch.setenv("METALOSS_DATA", str(folder / "no-data"))
    patch.setattr(module, "PAUSE", 0.0)
    patch.setattr(session, "PAUSE", 0.0)
    patch.setattr(session.figures, "curves", lambda *_: [])
    scans.written(folder, images=20, bright=160, dark=100)


def written(parent, name, paper, accuracies, **changes):
    """The folder of a finished training of a protocol, with other settings over it."""
    chosen = resolve(protocol(paper, {**changes, "loss": list(accuracies)}))
    folder = parent / "trainings" / name
    folder.mkdir(parents=True)
    storage.write_toml(folder / "config.toml", chosen.table())
    rows = [
        {
            "loss": loss,
            "lr": chosen.rate,
            "n": chosen.seeds,
            "failed": 0,
            "accuracy": mean,
            "accuracy_std": std,
        }
        for loss, (mean, std) in accuracies.items()
    ]
    storage.write_record(folder / "summary.json", {"table": rows, "trainings": [], "tuning": {}})
    return folder
