"""HTTP client of the registry, for commands and the demo. It uses the same API as other tools."""

from collections.abc import Iterator
from typing import Any, Self
from uuid import uuid4

import httpx

from shared.errors import RatchetError, Unavailable

_TOKEN_HINT = (
    " (no token was sent; --state names the state folder of the `ratchet up` that runs the "
    "registry, --token or RATCHET_TOKEN a token)"
)


class RegistryRequestRefused(RatchetError):
    """The registry rejected the request; the message is the registry's."""


class RegistryClient:
    """Reads versions and moves aliases, with an optional token. A context manager that closes its
    connections.

    Raises Unavailable if the registry does not answer, RegistryRequestRefused if it rejects a
    request.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=self._url, timeout=timeout, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: str) -> Any:
        return self._request("GET", path, params=query)

    def pages(self, path: str, **query: str) -> Iterator[Any]:
        """Yield the pages of a list."""
        query["limit"] = "200"
        while True:
            page = self.get(path, **query)
            yield page
            if not page.get("next"):
                return
            query["cursor"] = page["next"]

    def get_all(self, path: str, **query: str) -> list[Any]:
        """Return all items of a list, page by page."""
        return [item for page in self.pages(path, **query) for item in page["items"]]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Post with a new idempotency key, so that a retry after a broken connection has no second
        effect.
        """
        return self._request("POST", path, json=body, headers={"Idempotency-Key": f'"{uuid4()}"'})

    def get_text(self, path: str) -> str:
        """Return the body of a page."""
        response = self._client.get(path)
        response.raise_for_status()
        return response.text

    def _request(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._send(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the registry at {self._url} does not answer ({error}); is `ratchet up` running?"
            ) from error
        if response.is_error:
            hint = _TOKEN_HINT if response.status_code in (401, 403) and not self._token else ""
            raise RegistryRequestRefused(_problem_text(response) + hint)
        return response.json()

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send a request, and once more if the connection breaks before the response. This is safe:
        reads have no effect, and posts have an idempotency key.
        """
        try:
            return self._client.request(method, path, **arguments)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return self._client.request(method, path, **arguments)


def _problem_text(response: httpx.Response) -> str:
    """Return title and detail of RFC 9457 problem details."""
    try:
        problem = response.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.request.url} answered {response.status_code}"
