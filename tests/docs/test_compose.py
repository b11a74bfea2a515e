"""The Compose file of `docs/how-to/mongodb-in-production.md`, read without Docker."""

from __future__ import annotations

import re

import pytest

from tests.docs.batch_jobs import EXAMPLES
from tools.docs_code import ROOT

FOLDER = EXAMPLES / "compose"


def test_the_compose_file_names_what_there_is() -> None:
    yaml = pytest.importorskip("yaml")
    text = (FOLDER / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    services = compose["services"]
    assert set(services) == {"db1", "db2", "db3", "setup", "worker"}
    for name in ("db1", "db2", "db3"):
        assert services[name]["volumes"] == [f"{name}:/data/db"]
        assert f'host: "{name}:27017"' in (FOLDER / "setup.js").read_text()
    assert set(compose["volumes"]) == {"db1", "db2", "db3"}
    build = services["worker"]["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    copied = re.findall(r"^COPY (.*) \S+$", (ROOT / build["dockerfile"]).read_text(), re.MULTILINE)
    assert all((ROOT / path).exists() for line in copied for path in line.split())
    set_there = re.findall(r"^(\w+)=", (FOLDER / "env.example").read_text(), re.MULTILINE)
    assert set(re.findall(r"\$\{(\w+)", text)) == set(set_there)
    url = services["worker"]["environment"]["AIOSTORAGE_URL"]
    assert url.endswith("@db1,db2,db3/tuning?replicaSet=rs0")
