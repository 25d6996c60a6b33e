"""Makes a finished run's winner one of the losses that come with the package.

metaloss evolve --genome tree --tasks fashionmnist --seed 0    # evolves it again
python scripts/ship.py tree-fashionmnist runs/fashionmnist-tree-gp-0
"""

import shutil
import sys

from metaloss import storage
from metaloss.criterion import loss_io
from metaloss.search.run_folder import find


def main(name: str, spec: str) -> None:
    """Copy the loss with its name and the data sets it has learned from.

    Its card says how it is evolved again.
    """
    run = find(spec)
    folder = loss_io.SHIPPED / name
    assert run.summary() is not None, f"{run.folder} is not finished"
    shutil.copytree(run.folder / "loss", folder, dirs_exist_ok=True)
    settings = run.settings
    table = storage.read_record(folder / "loss.json")
    sets = ", ".join(dict.fromkeys(f.dataset for f in settings.families))
    table["about"] = {"name": name, **table["about"], "data sets": sets}
    storage.write_record(folder / "loss.json", table)
    command = (
        f"metaloss evolve --tasks {' '.join(f.name for f in settings.families)} --genome "
        f"{settings.genome['kind']} "
        f"--strategy {settings.strategy['kind']} --generations {settings.generations} --seed "
        f"{settings.seed}"
    )
    card = (folder / "card.md").read_text()
    limits = (
        "Evolved for short trainings on few images: "
        "compare it with cross-entropy on your own before you trust it."
    )
    storage.write(folder / "card.md", f"{card}\nEvolved by `{command}`.\n\n{limits}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
