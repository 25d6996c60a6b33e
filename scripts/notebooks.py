"""Run example notebooks from their first cell to their last and keep the outputs.

    python scripts/notebooks.py [NOTEBOOK ...]

Without a name: all but number 7, which needs an environment of its own
(examples/learn2learn/run.py). Each runs in a temporary folder with a link to the task families, so
that its outputs name no folder of this machine.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python"},
}


def run(notebook: Any, folder: Path, home: Path) -> None:
    """Execute a notebook in `folder`; what lies in `home`, beside it, can be imported.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    before = dict(os.environ)
    paths = [str(home), str(ROOT), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "IPYTHONDIR": str(folder / ".ipython")}
    try:
        resources = {"metadata": {"path": folder}}
        NotebookClient(
            notebook,
            timeout=3600,
            kernel_name="python3",
            coalesce_streams=True,
            resources=resources,
        ).execute()
    finally:
        os.environ.clear()
        os.environ |= before


def main(paths: list[str]) -> None:
    """Run the notebooks, and write each when all of it has run."""
    for path in map(Path, paths or sorted(map(str, (ROOT / "examples").glob("*.ipynb")))):
        began = time.monotonic()
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tasks").symlink_to(ROOT / "tasks")
            run(notebook, Path(folder), path.resolve().parent)
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # clocks
        notebook.metadata = nbformat.from_dict(PLAIN)
        nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - began:.0f} s, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
