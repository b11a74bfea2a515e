"""The examples of the README and of the documentation, run as a reader would run them.

A page's scripts (``python runnable``) run one after the other in one directory, each in a process
of its own. A block ``text output`` behind a script is what it prints, to the letter. What is marked
``python fragment`` has to compile. Commands (``console runnable``) run among the scripts.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.preloaded import preloaded
from tools.docs_code import PAGES, ROOT, blocks_of, modules_of

DEADLINE = 60.0
"""Seconds that one script may take."""

LONG = 240.0
"""Seconds that one command may take: the demo works for a while."""

LIBRARIES = ("aiostorage.drivers.memory", "aiostorage.drivers.sqlite")
"""What the scripts need not import themselves."""

SHORTER = {"demo": ["--sample", "0.05"]}
"""What is added to commands that work for long: less to pack."""

CLI = "import sys; from aiostorage.cli import main; sys.exit(main())"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PYTHON = [block for block in BLOCKS if block.is_a("python")]
README_COMMANDS = [
    command
    for block in BLOCKS
    if block.page.name == "README.md" and block.is_a("console")
    for command in block.commands
]


def run(
    script: str | Path,
    arguments: list[str],
    folder: Path,
    where: str,
    *,
    flags: tuple[str, ...] = (),
    deadline: float = DEADLINE,
) -> str:
    """Run a Python to its end; return what it printed."""
    process = preloaded(flags, *LIBRARIES).start(
        script,
        *arguments,
        directory=folder,
        environment={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "XDG_CONFIG_HOME": str(folder),
            "XDG_DATA_HOME": str(folder),
            "COLUMNS": "100",
        },
        stdin=subprocess.DEVNULL,
    )
    try:
        out, err = process.communicate(deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"{where}: it hangs\n{out}\n{err}")
    assert process.returncode == 0, f"{where}: exit {process.returncode}\n{out}\n{err}"
    return out


def run_command(command: str, folder: Path, where: str) -> str:
    """Run `aiostorage`, from this environment wherever the reader has it."""
    program, *arguments = shlex.split(command)
    assert Path(program).name == "aiostorage", f"{where}: {command!r} is not ours to run"
    arguments += SHORTER.get(arguments[0], [])
    return run(CLI, arguments, folder, where, deadline=LONG)


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if any("runnable" in b.words for b in blocks_of(p))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_scripts_of_a_page_run(page: Path, tmp_path: Path) -> None:
    printed: str | None = None
    for block in blocks_of(page):
        if block.is_a("python", "runnable"):
            names = [w.partition("=")[2] for w in block.words if w.startswith("file=")]
            script = tmp_path / (names[0] if names else f"line_{block.line}.py")
            script.write_text(block.text, encoding="utf-8")
            printed = run(script, [], tmp_path, block.where, flags=("-W", "error"))
        elif block.is_a("console", "runnable"):
            for command in block.commands:
                printed = run_command(command, tmp_path, f"{block.where}: {command}")
        elif block.is_a("text", "output"):
            assert printed is not None, f"{block.where}: nothing ran before"
            assert printed == block.text, block.where


def test_every_python_block_says_what_it_is() -> None:
    unmarked = [
        block.where
        for block in PYTHON
        if not (block.is_a("python", "runnable") or block.is_a("python", "fragment"))
    ]
    assert not unmarked
    assert any(block.page.name == "README.md" for block in PYTHON)


def test_python_blocks_compile() -> None:
    wrong = []
    for name, text in [module for page in PAGES for module in modules_of(page)]:
        try:
            compile(text, name, "exec")
        except SyntaxError as error:
            wrong.append(f"{name}: {error}\n{error.text}")
    assert not wrong


def test_the_readme_has_its_two_commands() -> None:
    assert README_COMMANDS[0].endswith("aiostorage demo")
    assert "bash .ci/run" in README_COMMANDS


@pytest.mark.timeout(600)
def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    for part in (part for command in README_COMMANDS for part in command.split(" && ")):
        if re.fullmatch(r"python3? -m venv \S+|\S*pip install \.", part):
            continue  # .ci/run does as much before it starts these tests
        if part == "bash .ci/run":
            check_script(ROOT / ".ci" / "run")
        else:
            run_command(part, tmp_path, f"README.md: {part}")


def check_script(script: Path) -> None:
    """Look whether the script that runs these tests could run; it cannot run itself."""
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "-m venv" in text
    assert "--group mlflow --group comet" in text  # both include the group test
    assert "-m pytest" in text
    if bash := shutil.which("bash"):
        subprocess.run([bash, "-n", script], check=True, stdin=subprocess.DEVNULL, timeout=DEADLINE)
