"""Requests to Comet: bounded in time, never repeated, with errors in plain words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from aiostorage._core.driver_options import hide_credentials
from aiostorage.errors import TrackerError, TrackerUnavailable
from aiostorage.trackers.comet.package import import_comet

__all__ = ["Call", "CometClient", "CometRefused"]

_REQUEST_TIMEOUT: Final = 10.0
"""The most that one request may wait for a connection, and again for the answer."""

_PASSING: Final = frozenset({401, 402, 403, 407, 408, 425, 429})
"""Refusals of the account or of the moment, not of what was sent; all above 499 are so too."""

_ACCOUNT_CODES: Final = {
    90212: "Comet does not know the API key",
    90219: "Comet has no such workspace, or the API key is not for it",
    7000011: "the API key may only read in this workspace",
    7000008: "Comet wants a newer comet_ml",
    7000020: "the project has as many runs as Comet allows",
    7000023: "the API key is for another workspace",
}
"""Comet's ``sdk_error_code`` where a 400 is about the account, which the user can correct."""

_HOW_TO_SET_THE_KEY: Final = "set COMET_API_KEY, or run `comet login`"


class CometRefused(TrackerError):
    """Comet refused what it was sent.

    Attributes
    ----------
    status : int
        The status of the answer.
    code : int or None
        Comet's ``sdk_error_code``.
    """

    def __init__(self, message: str, status: int, code: int | None) -> None:
        self.status = status
        self.code = code
        super().__init__(message)


class CometClient:
    """A connection to Comet with the address and the API key that ``comet_ml`` is configured with.

    Parameters
    ----------
    seconds
        The most that one call of the tracker takes, with all its requests.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._rest: Any = None
        self._network_error: type[Exception] = OSError
        self._key = ""

    @property
    def is_open(self) -> bool:
        """Whether `connect` has succeeded."""
        return self._rest is not None

    @property
    def address(self) -> str:
        """The address for ``comet_ml``, as ``COMET_URL_OVERRIDE`` has it."""
        return f"{self._rest.server_url}/clientlib/"

    def connect(self) -> None:
        """Find the API key, and let Comet check it.

        Raises
        ------
        TrackerUnavailable
            There is no API key, it is not valid, or Comet cannot be reached.
        """
        comet = import_comet()
        self._network_error = import_comet("requests").RequestException
        key = comet.get_api_key(None, comet.get_config())
        if not key:
            raise TrackerUnavailable(f"there is no API key for Comet: {_HOW_TO_SET_THE_KEY}")
        self._key = key
        rest = comet.get_rest_api_client("v2", api_key=key, check_version=False)
        self._rest = rest
        try:
            self.call().get("account-details")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections."""
        rest, self._rest = self._rest, None
        if rest is not None:
            rest.close()

    def credentials(self) -> dict[str, Any]:
        """Return what the endpoints of ``comet_ml`` want in the body."""
        version = import_comet().__version__
        now = int(time.time() * 1000)
        return {"apiKey": self._key, "libVersion": version, "local_timestamp": now}

    def call(self) -> Call:
        """Begin a call, whose requests share its time."""
        return Call(self, time.monotonic() + self.seconds)

    def request(
        self,
        endpoint: str,
        seconds: float,
        params: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """Send one request and return the answer's JSON.

        Parameters
        ----------
        endpoint
            Behind ``api/rest/v2/``; or with ``clientlib/`` in front, one that only ``comet_ml``
            uses.
        params, body
            What to GET, or what to POST.
        """
        rest = self._rest
        if rest is None:
            raise TrackerUnavailable("the mirror in Comet is not open")
        old = endpoint.startswith("clientlib/")
        url = f"{rest.server_url}/{endpoint}" if old else f"{rest.base_url}{endpoint}"
        # half for the connection, half for the answer
        options = {"retry": False, "timeout": min(_REQUEST_TIMEOUT, seconds / 2)}
        http = rest.low_level_api_client
        try:
            if body is None:
                response = http.get(url, params=params, **options)
            else:
                response = http.post(url, payload=body, **options)
        except (self._network_error, OSError) as error:
            raise TrackerUnavailable(
                f"Comet cannot be reached at {hide_credentials(rest.server_url)}: "
                f"{self._without_key(error)}"
            ) from None  # its traceback shows the request, with the key
        return self._answer(endpoint, response)

    def _answer(self, endpoint: str, response: Any) -> Any:
        try:
            answer = response.json() if response.content else {}
        except ValueError:
            answer = None
        if response.history or 300 <= response.status_code < 400:
            raise TrackerUnavailable(
                f"Comet has moved: {endpoint} was sent elsewhere; COMET_URL_OVERRIDE needs the "
                "new address"
            )
        if response.status_code >= 400:
            raise self._refusal(endpoint, response.status_code, answer)
        if answer is None:
            raise TrackerUnavailable(f"what answered {endpoint} is not Comet: it sent no JSON")
        return answer

    def _refusal(self, endpoint: str, status: int, answer: Any) -> TrackerError:
        told = answer if isinstance(answer, Mapping) else {}
        text = self._without_key(told.get("msg") or "without a reason")
        code = told.get("sdk_error_code")
        if status == 401 or code == 90212:
            return TrackerUnavailable(
                f"Comet does not accept the API key ({status}, {text}): {_HOW_TO_SET_THE_KEY}"
            )
        if code in _ACCOUNT_CODES:
            return TrackerUnavailable(f"{_ACCOUNT_CODES[code]} ({status}, {text})")
        message = f"Comet refused {endpoint} ({status}, {text})"
        if status in _PASSING or status >= 500:
            return TrackerUnavailable(message)
        return CometRefused(message, status, code)

    def _without_key(self, text: object) -> str:
        shown = str(text)
        return (shown.replace(self._key, "***") if self._key else shown)[:300]


class Call:
    """The requests of one call of the tracker, which share its time.

    Parameters
    ----------
    client
        Sends them.
    deadline
        In seconds of `time.monotonic`.
    """

    def __init__(self, client: CometClient, deadline: float) -> None:
        self._client = client
        self._deadline = deadline

    def get(self, endpoint: str, **params: Any) -> Any:
        """Return the answer to a GET."""
        return self._client.request(endpoint, self._seconds(), params=params)

    def post(self, endpoint: str, body: Mapping[str, Any]) -> Any:
        """Return the answer to a POST."""
        return self._client.request(endpoint, self._seconds(), body=body)

    def credentials(self) -> dict[str, Any]:
        """Return what the endpoints of ``comet_ml`` want in the body."""
        return self._client.credentials()

    def _seconds(self) -> float:
        """Return the time that is left; raise TrackerUnavailable if that is too little."""
        left = self._deadline - time.monotonic()
        if left < 0.05:
            raise TrackerUnavailable("Comet is too slow: the call did not end in its time")
        return left
