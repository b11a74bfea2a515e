"""Paths and URLs that name no file: each engine that keeps one refuses them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiostorage import ConfigurationError, open_storage, storage_factory

ENGINES = ["sqlite", "track"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (5, "a str or a Path, not 5"),
        (b"tune", "a str or a Path, not b'tune'"),
        (["a"], "a str or a Path, not"),
        ("", "which file"),
        ("a\0b", "has a NUL"),
        ("\ud800", "characters that no file name has"),
        ("there/\ud800/a", "characters that no file name has"),
        ("a" * 300, "has 300 bytes"),
        ("ü" * 126, "has 252 bytes"),
        (":memory:", "write memory://"),
        ("file::memory:?cache=shared", "write memory://"),
        ("file:tune.db?mode=memory", "not a path here"),
        ("mongodb://jo:secret@h/tune", r"'mongodb://\*\*\*@h/tune' is a URL: pass it as `url`"),
        ("mongodb:/jo:secret@h/tune", r"\*\*\*@h/tune' is a URL: pass it as `url`"),
    ],
)
def test_paths_of_no_file(engine: str, path: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        storage_factory.create(engine, path=path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("///a%00b", "has a NUL"),
        ("///%ff", "not UTF-8"),
        ("///" + "a" * 300, "has 300 bytes"),
        ("///:memory:", "write memory://"),
        ("//[1", "Invalid IPv6 URL"),
        ("//tu℀ne", "invalid characters"),
        ("///a\nb", "write %0A"),
        ("///a\tb", "and %09 for a tab"),
    ],
)
def test_urls_of_no_file(engine: str, url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_storage(f"{engine}:{url}")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seconds", [[], True, "nan", "soon", -1, 10**400, float("inf")])
def test_times_that_cannot_be_waited_for(engine: str, seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="busy_timeout is a number of seconds"):
        storage_factory.create(engine, path="a", busy_timeout=seconds)


@pytest.mark.parametrize("uri", ["file://[1.json", "file://tu℀ne.json", 5])
def test_uris_of_no_file(uri: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^track: "):
        storage_factory.create("track", uri=uri)


@pytest.mark.parametrize("objective", [5, b"x", ["loss"], ""])
def test_an_objective_is_a_name(objective: Any) -> None:
    with pytest.raises(ConfigurationError, match="the name of a metric, not"):
        storage_factory.create("track", path="a", objective=objective)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["a" * 220, "ü", "a b", "#", "%41", "-", "a\nb", ":memory:"])
def test_names_that_files_may_have(engine: str, name: str) -> None:
    assert name in repr(storage_factory.create(engine, path=Path(name))) or "\n" in name
