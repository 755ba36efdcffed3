"""The registry over HTTP, as any operator's tool would use it."""

from typing import Any, Self
from uuid import uuid4

import httpx

from shared.errors import RatchetError, Unavailable


class RegistryRequestRefused(RatchetError):
    """The registry answered that it will not do this; the message is its own."""


class RegistryClient:
    """Reads versions and moves aliases, with a token if there is one; a context manager, which
    closes its connections.

    Raises Unavailable when the registry does not answer, Refused when it will not.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 30.0) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=self._url, timeout=timeout, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **query: str) -> Any:
        return self._ask("GET", path, params=query)

    def get_all(self, path: str) -> list[Any]:
        """All items of a list, page by page."""
        items: list[Any] = []
        query = {"limit": "200"}
        while True:
            page = self.get(path, **query)
            items += page["items"]
            if not page.get("next"):
                return items
            query["cursor"] = page["next"]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Asked for under a key of its own, so that what is sent again because a connection broke
        is still one request.
        """
        return self._ask("POST", path, json=body, headers={"Idempotency-Key": f'"{uuid4()}"'})

    def get_text(self, path: str) -> str:
        """A page, as it is."""
        response = self._client.get(path)
        response.raise_for_status()
        return response.text

    def _ask(self, method: str, path: str, **about: Any) -> Any:
        try:
            response = self._answer(method, path, **about)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"the registry at {self._url} does not answer ({error}); is `ratchet up` running?"
            ) from error
        if response.is_error:
            raise RegistryRequestRefused(_problem(response))
        return response.json()

    def _answer(self, method: str, path: str, **about: Any) -> httpx.Response:
        """The answer; asked for once more when a connection breaks before it is there, which moves
        nothing twice.
        """
        try:
            return self._client.request(method, path, **about)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return self._client.request(method, path, **about)


def _problem(response: httpx.Response) -> str:
    """The words of RFC 9457 problem details."""
    try:
        problem = response.json()
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{response.request.url} answered {response.status_code}"
