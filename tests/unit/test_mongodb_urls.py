"""URLs of MongoDB servers, as `aiostorage.testing` makes them."""

from __future__ import annotations

import pytest

from aiostorage.testing.mongodb.urls import make_url, url_for_database


def test_make_url() -> None:
    assert make_url(["a:1"]) == "mongodb://a:1/"
    assert (
        make_url(["a:1", "b:2"], login=("jo@x", "p/w:%"), options={"tls": "true"})
        == "mongodb://jo%40x:p%2Fw%3A%25@a:1,b:2/?tls=true&authSource=admin"
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mongodb://a:1", "mongodb://a:1/db"),
        ("mongodb://a:1/old", "mongodb://a:1/db"),
        ("mongodb://a:1,b:2/?replicaSet=rs", "mongodb://a:1,b:2/db?replicaSet=rs"),
        ("mongodb+srv://a/?tls=true", "mongodb+srv://a/db?tls=true"),
        # without authSource a user is looked up in the database of the path, or in admin
        ("mongodb://u:p@a", "mongodb://u:p@a/db?authSource=admin"),
        ("mongodb://u:p@a/old?w=1", "mongodb://u:p@a/db?w=1&authSource=old"),
        ("mongodb://u:p@a/old?AUTHSOURCE=x", "mongodb://u:p@a/db?AUTHSOURCE=x"),
        (
            "mongodb://u@a/?authMechanism=MONGODB-X509",
            "mongodb://u@a/db?authMechanism=MONGODB-X509",
        ),
    ],
)
def test_url_for_database(url: str, expected: str) -> None:
    assert url_for_database(url, "db") == expected
