"""The glossary names what is in the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"


def glossary() -> list[tuple[str, str]]:
    """Return the terms and their meanings."""
    text = PAGE.read_text(encoding="utf-8").partition("## Glossary")[2]
    return re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \|$", text, re.MULTILINE)


def test_every_term_and_every_module_of_the_glossary_is_in_the_code() -> None:
    rows = glossary()
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


def test_the_terms_of_the_glossary_are_in_alphabetical_order() -> None:
    terms = [term for term, _ in glossary()]
    assert terms == sorted(terms)


def test_the_modules_that_the_page_names_are_there() -> None:
    for path in re.findall(r"`((?:tools|tests)/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8")):
        assert (ROOT / path).is_file(), path


def test_every_package_of_the_core_is_on_the_page() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("### The packages of the core")[2]
    shown = re.findall(r"^\| `_core/(\w+)/` \|", table, re.MULTILINE)
    found = [file.parent.name for file in (ROOT / "aiostorage" / "_core").glob("*/__init__.py")]
    assert sorted(shown) == sorted(found)


def test_the_layers_of_the_page_are_those_that_are_checked() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Who may import whom")[2]
    shown = text.partition("```text\n")[2].partition("\n```")[0].replace("drivers.*", "drivers")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [layers] = [
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["name"] == "layers"
    ]
    assert shown.splitlines() == [layer.replace("aiostorage.", "") for layer in layers]


def test_every_folder_of_tests_is_in_the_table_for_contributors() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {file.parent.name for file in (ROOT / "tests").glob("*/*.py")}
    missing = [folder for folder in folders if f"| `tests/{folder}` |" not in table]
    assert not missing
