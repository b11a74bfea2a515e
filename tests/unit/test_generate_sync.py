"""The generated synchronous modules follow the async protocol."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ("aiostorage/sync/facade.py", "aiostorage/sync/base_protocol.py")
SOURCE = "aiostorage/protocols.py"


def generate(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/generate_sync.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the modules, to be changed."""
    (tmp_path / "aiostorage/sync").mkdir(parents=True)
    for name in (SOURCE, *GENERATED):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_what_is_committed_is_up_to_date() -> None:
    done = generate("--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_change_of_the_protocol_is_shown(checkout: Path) -> None:
    source = checkout / SOURCE
    text = source.read_text(encoding="utf-8")
    line = "async def complete_trial(self, trial: Trial, results: Results) -> None:"
    assert text.count(line) == 1
    changed = line.replace("results: Results", "results: Results = 1.0")
    source.write_text(text.replace(line, changed), encoding="utf-8")
    before = {name: (checkout / name).read_bytes() for name in GENERATED}

    done = generate("--check", "--root", checkout)
    assert done.returncode == 1
    assert f"--- {GENERATED[0]}" in done.stdout
    assert "+    def complete_trial(self, trial: Trial, results: Results = 1.0)" in done.stdout
    assert "python tools/generate_sync.py" in done.stdout
    assert f"--- {GENERATED[1]}" not in done.stdout  # the original has no such method
    assert {name: (checkout / name).read_bytes() for name in GENERATED} == before

    assert generate("--root", checkout).returncode == 0
    assert generate("--check", "--root", checkout).returncode == 0
    assert (checkout / GENERATED[0]).read_bytes() != before[GENERATED[0]]


def test_a_change_of_a_docstring_is_shown(checkout: Path) -> None:
    source = checkout / SOURCE
    text = source.read_text(encoding="utf-8")
    assert text.count("Return the trials that are not completed.") == 1
    source.write_text(text.replace("that are not completed.", "still to do."), encoding="utf-8")
    done = generate("--check", "--root", checkout)
    assert done.returncode == 1
    for name in GENERATED:
        assert f"--- {name}" in done.stdout


def test_words_that_the_protocol_no_longer_has(checkout: Path) -> None:
    source = checkout / SOURCE
    text = source.read_text(encoding="utf-8")
    source.write_text(text.replace("the body was cancelled", "it was cancelled"), encoding="utf-8")
    done = generate("--check", "--root", checkout)
    assert done.returncode == 1
    assert "the body was cancelled, or the state" in done.stderr


@pytest.mark.parametrize("name", GENERATED)
def test_every_method_has_its_docstring(name: str) -> None:
    module = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    (owner,) = (node for node in module.body if isinstance(node, ast.ClassDef))
    methods = [node for node in owner.body if isinstance(node, ast.FunctionDef)]
    assert len(methods) > 25
    for method in methods:
        overload = bool(method.decorator_list)
        assert overload or (ast.get_docstring(method) and len(method.body) == 2), method.name
    assert not any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(module))
