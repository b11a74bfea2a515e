"""The screen in a browser of this machine, with textual-serve."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.server import Server

__all__ = ["serve_screen"]

HOST: Final = "127.0.0.1"
"""The loopback address: no other machine can connect."""


def serve_screen(
    arguments: Sequence[str], port: int, title: str, say: Callable[[str], None]
) -> None:
    """Serve the screen until Ctrl-C or SIGTERM.

    Parameters
    ----------
    arguments
        The arguments of the command that draws the screen, which runs once for each browser.
    """
    command = shlex.join([sys.executable, "-m", "aiostorage", *arguments])
    _ScreenServer(command, port, title, say).serve()


class _ScreenServer(Server):
    """A server that answers only its own pages."""

    def __init__(self, command: str, port: int, title: str, say: Callable[[str], None]) -> None:
        super().__init__(command, host=HOST, port=port, title=title)
        self._say = say

    def initialize_logging(self) -> None:
        """Log as the command does."""
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

    async def on_startup(self, app: web.Application) -> None:  # noqa: ARG002
        """Print the address of the screen."""
        self._say(f"the screen is at {self.public_url} (Ctrl-C ends it)")

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        names = [f"{HOST}:{self.port}", f"localhost:{self.port}"]
        # the page would load a font from another server, which would then know of the user
        policy = " ".join(
            ["default-src 'unsafe-inline' 'unsafe-eval' data: blob:"]
            + [f"{scheme}://{name}" for name in names for scheme in ("http", "ws")]
        )

        @web.middleware
        async def own_pages_only(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            # another page in the same browser could connect, too, also by a name that it controls
            origin = request.headers.get("Origin")
            if request.host not in names or (
                origin is not None and urlsplit(origin).netloc not in names
            ):
                raise web.HTTPForbidden(text="only pages of this server may connect")
            response = await handler(request)
            if isinstance(response, web.Response):
                response.headers["Content-Security-Policy"] = policy
            return response

        app.middlewares.append(own_pages_only)
        return app
