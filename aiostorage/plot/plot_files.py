"""Writing figures: pages that work without a network, and pictures."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from aiostorage.errors import ConfigurationError
from aiostorage.plot.plot_axes import axis_label
from aiostorage.plot.plot_theme import TEXT_COLOUR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

__all__ = ["PICTURES", "check_pictures", "plot_page", "write_page", "write_picture"]

PICTURES: Final = (".png", ".svg", ".pdf", ".jpg", ".webp")
"""The suffixes of pictures."""

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0 auto; max-width: 1400px; padding: 1rem; background: white; color: {colour};
       font-family: system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
section {{ margin-bottom: 1.5rem; }}
</style>
<script>{script}</script>
</head>
<body>
{sections}
</body>
</html>
"""


def plot_page(title: str, figures: Mapping[str, Figure]) -> str:
    """Return a page of HTML with all figures, which needs no network: it contains plotly.js.

    Parameters
    ----------
    figures
        By the ids of their sections.
    """
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  an extra

    sections = "\n".join(
        f'<section id="{escape(name)}">'
        + figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{name}",
            default_width="100%",
            config={"displaylogo": False, "responsive": True},
        )
        + "</section>"
        for name, figure in figures.items()
    )
    return _PAGE.format(
        title=axis_label(title, 80), colour=TEXT_COLOUR, script=get_plotlyjs(), sections=sections
    )


def write_page(path: Path, title: str, figures: Mapping[str, Figure]) -> None:
    """Write the page of `plot_page`, completely or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    with _replaced(path) as new:
        new.write_text(plot_page(title, figures), encoding="utf-8")


def check_pictures(path: Path) -> type[Exception]:
    """Return the exception that kaleido raises when it finds no browser.

    Raises
    ------
    ConfigurationError
        kaleido is not installed.
    """
    try:
        from kaleido.errors import ChromeNotFoundError  # noqa: PLC0415  an extra
    except ImportError as error:
        raise ConfigurationError(
            f"{path.suffix} pictures need kaleido 1 or newer, which is not installed: "
            "pip install 'aiostorage-orion[plot]'; .html needs only plotly"
        ) from error
    return cast("type[Exception]", ChromeNotFoundError)


def write_picture(
    path: Path, figure: Figure, *, width: int = 1100, height: int | None = None
) -> None:
    """Draw a figure with kaleido, in the format that the suffix of the path names.

    Parameters
    ----------
    height
        Default: the height of the figure.

    Raises
    ------
    ConfigurationError
        kaleido is not installed, or it finds no browser, or the browser cannot draw.
    OSError
        The file cannot be written.
    """
    not_found = check_pictures(path)
    for name in ("kaleido", "choreographer", "logistro"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _replaced(path) as new:
        # a browser without a graphics card takes half a minute for twice as many dots of these
        slow = any(trace.type == "parcoords" for trace in figure.data)
        scale = 1 if slow or path.suffix in (".svg", ".pdf") else 2
        try:
            figure.write_image(new, width=width, height=height or figure.layout.height, scale=scale)
        except OSError:
            raise
        except Exception as error:
            if isinstance(error, not_found) or "Chrome" in str(error):
                raise ConfigurationError(
                    f"{path.suffix} pictures need Chromium or Chrome, which kaleido does not find: "
                    "install one (apt-get install chromium, or plotly_get_chrome), or name it in "
                    "BROWSER_PATH; .html needs no browser"
                ) from error
            raise ConfigurationError(
                f"the browser could not draw {path.name}: {type(error).__name__}: {error}; "
                "with .html no browser is needed"
            ) from error


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Yield a new file beside the path, which replaces it if the body succeeds."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    new = Path(name)
    try:
        yield new
        mask = os.umask(0)
        os.umask(mask)
        new.chmod(0o666 & ~mask)
        new.replace(path)
    finally:
        with suppress(FileNotFoundError):
            new.unlink()
