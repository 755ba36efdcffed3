"""Chat completions of an OpenAI-compatible server, such as Ollama, llama.cpp or vLLM."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity import wait_random_exponential as random_exponential

from services.dataset.teacher.prompting import REPLY_SCHEMA
from services.dataset.teacher.reply_cache import TeacherReply
from services.dataset.teacher.settings import TeacherSettings
from shared.errors import Misconfigured, Unavailable

ATTEMPTS = 6
_MAX_REPLY_BYTES = 8 << 20
_MAX_WAIT = 60.0
_RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)
_NO_SCHEMA = (400, 422, 501)
_CHARACTERS_PER_TOKEN = 4
_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "examples", "strict": True, "schema": REPLY_SCHEMA},
}


class _Busy(Unavailable):
    """A failed attempt. `wait` is the pause that the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class ChatApi:
    """A client for one server and model. An async context manager.

    A failed call is repeated with growing pauses, or the pause that the server asks for. A server
    that rejects a JSON Schema gets requests without one from then on.
    """

    def __init__(
        self,
        settings: TeacherSettings,
        key: str | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._sleep = sleep
        self._has_schema = True
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, timeout=settings.timeout_seconds)

    async def __aenter__(self) -> "ChatApi":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def ask(self, request: Mapping[str, Any]) -> TeacherReply:
        """Return the reply to a request with `model` and `messages`.

        Raises Unavailable if the server fails repeatedly, Misconfigured if it rejects the request.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Busy),
            stop=stop_after_attempt(ATTEMPTS),
            wait=_pause,
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._attempt, request)

    async def _attempt(self, request: Mapping[str, Any]) -> TeacherReply:
        has_schema = self._has_schema
        body = {**request, "response_format": _FORMAT} if has_schema else dict(request)
        status, headers, data = await self._post(body)
        if status in _NO_SCHEMA and has_schema:
            self._has_schema = False
            return await self._attempt(request)
        if status in _RETRIED:
            raise _Busy(f"{self._name} answered {status}", _retry_after(headers))
        if status != 200:
            raise Misconfigured(
                f"{self._name} rejects the request with status {status}: {_error_text(data)}; "
                "check teacher.url and teacher.model of the recipe, and RATCHET_TEACHER_KEY_FILE"
            )
        return self._reply(data, request)

    async def _post(self, body: Mapping[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        url = f"{self._settings.url.rstrip('/')}/chat/completions"
        try:
            # A server that sends a little now and then would never exceed the client's timeout.
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                self._client.stream("POST", url, json=body) as response,
            ):
                data = bytearray()
                async for part in response.aiter_bytes():
                    data += part
                    if len(data) > _MAX_REPLY_BYTES:
                        raise Misconfigured(f"{self._name} sends replies of more than 8 MiB")
                return response.status_code, response.headers, bytes(data)
        except httpx.InvalidURL as error:
            raise Misconfigured(f"teacher.url of the recipe is wrong: {error}") from error
        except (httpx.HTTPError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise _Busy(f"{self._name} does not answer ({reason})") from error

    @property
    def _name(self) -> str:
        return f"the teacher at {self._settings.url}"

    def _reply(self, data: bytes, request: Mapping[str, Any]) -> TeacherReply:
        try:
            completion = json.loads(data)
            message = completion["choices"][0]["message"]
            text = _text_of(message)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _Busy(f"{self._name} answered with no chat completion") from error
        usage = completion.get("usage") or {}
        tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
        if not isinstance(tokens, int) or tokens < 0:
            characters = sum(len(each["content"]) for each in request["messages"]) + len(text)
            tokens = characters // _CHARACTERS_PER_TOKEN
        return TeacherReply(text=text, tokens=tokens)


def _pause(state: RetryCallState) -> float:
    """Return the seconds until the next attempt: random and growing, at least the requested one,
    at most `_MAX_WAIT`.
    """
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, _Busy) else 0.0
    return min(max(asked, random_exponential(max=_MAX_WAIT)(state)), _MAX_WAIT)


def _text_of(message: Mapping[str, Any]) -> str:
    """Return the answer of a message. Servers whose chat template opens a block of reasoning put a
    direct answer into the field of the reasoning, and leave the content empty.
    """
    for name in ("content", "reasoning_content", "reasoning"):
        value = message.get(name)
        if isinstance(value, list):
            value = "".join(part.get("text", "") for part in value if isinstance(part, dict))
        if isinstance(value, str) and value.strip():
            return value.encode("utf-8", "replace").decode()
    return ""


def _retry_after(headers: httpx.Headers) -> float:
    try:
        return max(float(headers.get("Retry-After", "0")), 0.0)
    except ValueError:
        return 0.0


def _error_text(data: bytes) -> str:
    return " ".join(data[:300].decode(errors="replace").split())
