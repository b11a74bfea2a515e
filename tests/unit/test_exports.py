"""What can be imported, from where, and what that costs."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

import pytest

import aiostorage
import aiostorage.testing

MOVED = {
    "aiostorage.legacy": "aiostorage.sync",
    "aiostorage.testing.driver_contract": "aiostorage.testing",
    "aiostorage.testing.facade": "aiostorage.testing.contract.facade",
    "aiostorage.testing.mongod": "aiostorage.testing",
    "aiostorage.testing.replica_set": "aiostorage.testing",
    "aiostorage.testing.stateful": "aiostorage.testing.contract.stateful",
}
"""Where the names of a module are now whose old path works for one minor version."""

NEEDS = {
    "aiostorage.drivers.mongodb": "motor",
    "aiostorage.optuna": "optuna",
    "aiostorage.orion": "orion.core",
}
"""Modules that need a library which may not be there."""


def modules() -> list[str]:
    found = pkgutil.walk_packages(aiostorage.__path__, "aiostorage.")
    names = [m.name for m in found if not m.name.endswith("__main__")]
    return ["aiostorage", *(name for name in names if name not in MOVED)]


def imported() -> Iterator[tuple[str, ModuleType]]:
    """Import all modules, but those whose library is not there."""
    there = {prefix: find_spec(library.partition(".")[0]) for prefix, library in NEEDS.items()}
    for name in modules():
        if all(found or not name.startswith(prefix) for prefix, found in there.items()):
            yield name, importlib.import_module(name)


def test_all_is_sorted_and_there() -> None:
    for name, module in imported():
        names = getattr(module, "__all__", None)
        assert names is not None or not public(module), f"{name} has no __all__"
        assert list(names or ()) == sorted(set(names or ()), key=ruff_order), name
        for each in names or ():
            assert hasattr(module, each), f"{name} has no {each}"


def test_all_has_all_that_is_public() -> None:
    for name, module in imported():
        if "._" not in name and ".cli." not in name:
            missing = public(module) - set(getattr(module, "__all__", ()))
            assert not missing, f"{name} defines {missing} and does not export it"


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_a_moved_module_warns_and_has_its_names(old: str, new: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {new}"):
        module = importlib.import_module(old)
    there = importlib.import_module(new)
    for name in module.__all__:
        assert getattr(module, name) is getattr(there, name)


def test_names_that_moved_out_of_a_package_warn() -> None:
    import aiostorage.transfer

    for name in ("Counts", "export_orion", "import_orion"):
        with pytest.warns(
            DeprecationWarning, match=f"transfer.{name} has moved to aiostorage.orion"
        ):
            moved = getattr(aiostorage.transfer, name)
        assert moved is getattr(importlib.import_module("aiostorage.orion"), name)


def test_the_public_door() -> None:
    own = {
        each
        for each, value in vars(aiostorage).items()
        if not each.startswith("_") and not isinstance(value, ModuleType)
    }
    assert own | aiostorage._LATER.keys() == set(aiostorage.__all__)
    assert all(getattr(aiostorage, name) for name in aiostorage._LATER)
    assert aiostorage.__version__


def public(module: ModuleType) -> set[str]:
    """Return the classes and functions that a module defines itself."""
    return {
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    }


def ruff_order(name: str) -> tuple[int, str]:
    """Sort as RUF022 does: constants, classes, the rest."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1 if name[:1].isupper() else 2), name


PROBE = """
import json, sys, time
known, begin = set(sys.modules), time.process_time()
import asyncio
control, middle = set(sys.modules) - known, time.process_time()
import aiostorage
took = (time.process_time() - middle) / (middle - begin)
print(json.dumps([took, len(control), sorted(set(sys.modules) - known)]))
"""
"""What `asyncio` costs, which nothing here can do without, and then what we cost beside it."""

HEAVY = {
    *("aiosqlite", "sqlite3", "motor", "pymongo", "rich", "click", "pytest", "hypothesis"),
    *("numpy", "orion", "msgpack", "tenacity", "importlib.metadata", "platformdirs"),
    *("difflib", "pathlib", "pickle", "secrets", "tomllib", "urllib.parse", "uuid"),
    *(f"aiostorage.{name}" for name in ("cli", "drivers", "findings", "readonly", "sync")),
    *(f"aiostorage.{name}" for name in ("testing", "trackers", "transfer", "work")),
}
"""What ``import aiostorage`` does not load: it waits until somebody needs it."""

LIBRARIES = {"anyio", "idna", "sniffio", "typing_extensions"}
"""What ``import aiostorage`` may load besides itself and the standard library."""


def probe() -> tuple[float, int, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    took, control, names = json.loads(done.stdout)
    return took, control, set(names)


def test_import_is_light() -> None:
    """In modules, and in processor time beside that of `asyncio`."""
    took, control, loaded = probe()
    assert not loaded & HEAVY
    roots = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    others = {root for root in roots if not root.startswith(("_", "aiostorage", "cython"))}
    assert others <= LIBRARIES
    assert len(loaded) < 3.5 * control
    for _ in range(4):  # both take a few hundredths of a second, in which much can happen
        if took < 4:
            break
        took = min(took, probe()[0])
    print(f"import aiostorage: {took:.1f} times asyncio, {len(loaded)} modules")
    assert took < 4


def test_the_plugin_is_light() -> None:
    heavy = "{'hypothesis', 'pymongo'}"
    code = f"import sys, aiostorage.testing.plugin; sys.exit(bool({heavy} & {{*sys.modules}}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    "contract", [aiostorage.testing.StorageContract, aiostorage.testing.DriverContract]
)
def test_no_law_hides_another(contract: type) -> None:
    names = [n for base in contract.__mro__ for n in vars(base) if n.startswith("test_")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.anyio
async def test_whole_collections_are_there_for_one_more_version() -> None:
    async with aiostorage.open_storage("memory://") as storage:
        await storage.create_benchmark({"name": "b"})
        with pytest.warns(DeprecationWarning, match="goes away in aiostorage 0.3"):
            collections = storage.collections
        assert [found["name"] for found in await collections.find("benchmarks", {})] == ["b"]
