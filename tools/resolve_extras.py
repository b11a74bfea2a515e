"""Resolve every extra of this package on every Python it supports, and install nothing.

``python tools/resolve_extras.py`` asks pip for a dry run of each; ``tox -e extras`` does it with a
pip that reads Oríon's metadata. Names of Pythons, such as 3.12, as arguments choose among them.
Prints a line for each extra; the exit code is 1 if one cannot be installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")


def main(arguments: list[str]) -> int:
    """Resolve what the arguments name; return the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    failed = 0
    for version in arguments or PYTHONS:
        python = find_python(version)
        if python is None:
            print(f"{version}  there is no such Python here")
            failed += 1
            continue
        for extra in ("", *project["optional-dependencies"]):
            target = f"{ROOT}[{extra}]" if extra else str(ROOT)
            packages = resolve(python, target)
            failed += packages is None
            found = "cannot be installed" if packages is None else f"{packages} packages"
            print(f"{version}  {extra or 'without an extra'}: {found}", flush=True)
    return 1 if failed else 0


def resolve(python: str, target: str) -> int | None:
    """Return how many packages pip would install; None, with pip's error, if it cannot."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", *options, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return None
    return len(json.loads(done.stdout)["install"])


def find_python(version: str) -> str | None:
    """Return an interpreter of that version that runs: on the path, or one of pyenv's."""
    for python in candidates(version):
        command = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return str(python)
    return None


def candidates(version: str) -> Iterator[Path]:
    """Yield files that may be such an interpreter."""
    name = f"python{version}"
    folders = [Path(folder) for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders += sorted(pyenv.glob(f"versions/{version}*/bin"), reverse=True)
    return (folder / name for folder in folders if os.access(folder / name, os.X_OK))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
