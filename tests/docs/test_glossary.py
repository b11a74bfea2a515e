"""The glossary names what is in the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"


def test_every_term_and_every_module_of_the_glossary_is_in_the_code() -> None:
    glossary = PAGE.read_text(encoding="utf-8").partition("## Glossary")[2]
    rows = re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \|$", glossary, re.MULTILINE)
    assert len(rows) > 20
    code = "\n".join(
        file.read_text(encoding="utf-8") for file in sorted((ROOT / "aiostorage").rglob("*.py"))
    )
    words = " ".join(re.findall(r"\w+", code)).casefold()
    for term, meaning in rows:
        assert re.search(rf"\b{term.casefold()}", words), f"{term!r} is nowhere in the code"
        for path in re.findall(r"`([\w/]+\.py)`", meaning):
            assert (ROOT / "aiostorage" / path).is_file(), f"{term}: there is no {path}"
        for owner, name in re.findall(r"`([A-Z]\w+)\.(\w+)`", meaning):
            assert re.search(rf"class {owner}\b[\s\S]*?\b{name}\b", code), f"{term}: {owner}.{name}"


def test_the_modules_that_the_page_names_are_there() -> None:
    for path in re.findall(r"`((?:tools|tests)/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path
