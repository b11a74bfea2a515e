"""The Python code of the README and of the documentation, checked by mypy --strict and pyright.

    python tools/docs_code.py                checks it against this checkout
    python tools/docs_code.py --installed    against the installed package, which has to be typed
    python tools/docs_code.py --only mypy    by one of them

Each script of a page (``python runnable``) is a module. So are all fragments of a page (``python
fragment``) together, behind the names that the text around them has introduced: those in `NAMES`.
mypy and pyright read everything in one run each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE: Final = re.compile(
    r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL
)

NOT_INSTALLED: Final = (
    *("orion", "comet_ml", "mlflow", "pymongo"),
    *("opentelemetry.exporter", "prometheus_client", "pythonjsonlogger", "structlog"),
)
"""What fragments import and whoever checks types need not have."""

NAMES: Final = """
import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from aiostorage import BackendError, Experiment, RetryPolicy, Storage, Trial, open_storage
from aiostorage import Worker, WorkerEvent, run_worker
from aiostorage.readonly import ReadOnlyStorage
from aiostorage.testing import FakeClock, StorageState
from aiostorage.trial import Result

URL: str = ""
URL_OF_LOOKER: str = ""
storage: Storage
experiment: Experiment
experiment_id: str = ""
uid: str = ""
evaluate: Callable[[dict[str, Any]], Awaitable[float]]
train: Callable[[dict[str, Any]], float]
def train_model(**params: Any) -> float:
    raise NotImplementedError
save: Callable[[str, list[Result] | None], None]
best: Callable[[Storage, Experiment], Awaitable[Trial | None]]
"""
"""What the fragments of every page may use."""

STUBS: Final = {
    "aiostorage_mystore.pyi": """
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from aiostorage.drivers.memory import MemoryDriver
from aiostorage.operations import Operation
T = TypeVar("T")
class MyDriver(MemoryDriver):
    def __init__(
        self, path: Path | str = ..., *, clock: Callable[[], datetime] = ...
    ) -> None: ...
    def _found(self) -> int: ...
    async def _run(self, operation: Operation[T]) -> T: ...
""",
}
"""Packages of the reader's own that fragments import."""


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    words: tuple[str, ...]
    text: str

    def is_a(self, *words: str) -> bool:
        """Return whether the block begins with these words."""
        return self.words[: len(words)] == words

    @property
    def module(self) -> str | None:
        """The name under which other scripts import it, if it is a file with a name."""
        files = [word for word in self.words if word.startswith("file=")]
        return files[0].removeprefix("file=").removesuffix(".py") if files else None

    @property
    def where(self) -> str:
        """Where the block stands, for people to read."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a console: what stands behind a prompt."""
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            tuple(match["info"].split()),
            match["body"],
        )
        for match in FENCE.finditer(text)
    ]


def modules_of(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules that a page's code is, with their names."""
    stem = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")))
    fragments: list[str] = []
    for block in blocks_of(page):
        if block.is_a("python", "runnable"):
            yield block.module or f"{stem}_line_{block.line}", block.text
        elif block.is_a("python", "fragment"):
            fragments.append(f"# {block.where}\n{_as_module(block)}")
    if fragments:
        names = [NAMES]
        # pyright takes a second import of a constant for an assignment
        if not re.search("import .*storage_factory", "\n".join(fragments)):
            names.append("from aiostorage import storage_factory")
        yield f"{stem}_fragments", "\n\n".join([*names, *fragments])


def _as_module(block: Block) -> str:
    """Return the text of a fragment; what awaits stands in a function."""
    try:
        compile(block.text, block.where, "exec")
    except SyntaxError:
        body = textwrap.indent(block.text, "    ")
        return f"async def line_{block.line}() -> None:\n{body}"
    return block.text


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all code; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--installed", action="store_true", help="go by the installed package, not by this checkout"
    )
    parser.add_argument("--only", choices=["mypy", "pyright"], help="by one of them")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="aiostorage-docs-") as name:
        folder = Path(name)
        write_modules(folder, checkout=not options.installed)
        environment = dict(os.environ)
        environment.pop("MYPYPATH", None)
        failed = [
            subprocess.call([sys.executable, "-m", *words], cwd=folder, env=environment)
            for words in (("mypy",), ("pyright", "-p", "."))
            if options.only in (None, words[0])
        ]
    return int(any(failed))


def write_modules(folder: Path, *, checkout: bool) -> None:
    """Write all modules, and the configurations of both programs."""
    code = folder / "code"
    code.mkdir()
    for name, text in [module for page in PAGES for module in modules_of(page)]:
        (code / f"{name}.py").write_text(text, encoding="utf-8")
    for name, text in STUBS.items():
        (code / name).write_text(text, encoding="utf-8")
    path = f"mypy_path = code:{ROOT}" if checkout else "mypy_path = code"
    ignored = [f"[mypy-{name}.*]\nignore_missing_imports = true\n" for name in NOT_INSTALLED]
    head = f"[mypy]\nstrict = true\nfiles = code\n{path}\n"
    (folder / "mypy.ini").write_text("\n".join([head, *ignored]), encoding="utf-8")
    settings = {
        "include": ["code"],
        "extraPaths": ["code", *([str(ROOT)] if checkout else [])],
        "reportMissingImports": False,  # mypy reports them
        "reportMissingModuleSource": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
