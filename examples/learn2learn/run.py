"""Make an environment of its own for learn2learn and run notebook 7 in it.

    python3.11 examples/learn2learn/run.py [ENVIRONMENT]

The environment (build/learn2learn by default; about 6 GB, most of it torch) stays for the next
time. learn2learn is unmaintained and needs numpy below 2, so it must not share one with anything
else. The notebook's outputs are written into it.
"""

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def main(environment: Path) -> None:
    """Install what is missing, then run the notebook."""
    python = environment / "bin" / "python"
    if not python.exists():
        if sys.version_info[:2] != (3, 11):
            sys.exit(
                "learn2learn 0.2.0 is known to build on Python 3.11: "
                "python3.11 examples/learn2learn/run.py"
            )
        venv.create(environment, with_pip=True)
    # In one command, so that pip finds versions that suit both.
    wanted = ["-r", ROOT / "examples" / "requirements-learn2learn.txt", "-e", f"{ROOT}[notebooks]"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    subprocess.run(
        [python, ROOT / "scripts" / "notebooks.py", HERE / "7_learn2learn.ipynb"], check=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "learn2learn")
