"""The embedded llama.cpp host as a target: tags `<model>:<version>`, aliases `<model>`,
`<model>:previous` and `<model>:challenger`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from services.registry.deploy.targets.target import (
    MergedModel,
    TargetRefused,
    TargetState,
    TargetUnavailable,
)
from services.registry.deploy.verification import (
    TIMED_PROBES,
    ServedToken,
    Timing,
    VerificationResult,
    verify_tokens,
)
from shared.errors import RatchetError
from shared.events import Message

_LOADING_SECONDS = 300.0


class LlamaCppTarget:
    """A host at a base URL. It reads merged files by path: it runs on this machine, or sees the
    same folder.
    """

    def __init__(self, location: str, client: httpx.AsyncClient, name: str = "llamacpp") -> None:
        self._url = location.rstrip("/")
        self._client = client
        self.name = name

    supports_canary = True

    def served_name(self, model: str) -> str:
        return model

    def served_name_of(self, model: str, version: str) -> str:
        return _tag(model, version)

    async def inspect(self, model: str) -> TargetState:
        listed = await self._request_json("GET", "/v1/models", timeout=5.0)
        prefix = f"{model}:"
        rows = [row for row in listed["data"] if row["id"].startswith(prefix) and row["available"]]
        versions = {row["id"].removeprefix(prefix): row["digest"] for row in rows}
        aliases = {alias: tag.removeprefix(prefix) for alias, tag in listed["aliases"].items()}
        return TargetState(
            aliases.get(model),
            aliases.get(_previous(model)),
            versions,
            aliases.get(_challenger(model)),
        )

    async def push(self, build: MergedModel) -> None:
        body = {"path": str(build.path), "digest": build.digest}
        await self._request_json("PUT", f"/admin/models/{_tag(build.model, build.version)}", body)

    async def verify(self, build: MergedModel) -> VerificationResult:
        """The host computed the digest when the version was pushed; each probe is answered
        greedily, one after the other. The chat template is in the file, so that its digest is that
        of the template as well.
        """
        there = await self.inspect(build.model)
        before = (
            await self._timings(build, there.champion)
            if there.champion not in (None, build.version)
            else []
        )
        tag = _tag(build.model, build.version)
        answers = [
            await self._generate(tag, probe.messages, len(probe.answer)) for probe in build.probes
        ]
        finding = verify_tokens(
            build.digest,
            there.versions.get(build.version, "none"),
            build.probes,
            [answer for answer, _ in answers],
        )
        return finding.with_timings([timing for _, timing in answers[:TIMED_PROBES]], before)

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        await self._request_json("PUT", f"/admin/aliases/{model}", {"tag": _tag(model, version)})
        if previous is not None and previous in (await self.inspect(model)).versions:
            await self._request_json(
                "PUT", f"/admin/aliases/{_previous(model)}", {"tag": _tag(model, previous)}
            )

    async def set_challenger(self, model: str, version: str | None) -> None:
        alias = f"/admin/aliases/{_challenger(model)}"
        if version is None:
            await self._delete(alias)
        else:
            await self._request_json("PUT", alias, {"tag": _tag(model, version)})

    async def remove(self, model: str, version: str) -> None:
        await self._delete(f"/admin/models/{_tag(model, version)}")

    async def _delete(self, path: str) -> None:
        """Have something gone; what is not there is."""
        async with self._translate_errors():
            answer = await self._client.delete(self._url + path, timeout=10.0)
            if answer.status_code not in (204, 404):
                raise TargetRefused(_reason(answer))

    async def _timings(self, build: MergedModel, version: str | None) -> list[Timing]:
        """How long another version takes; nothing when it does not answer, which is no fault of the
        build's.
        """
        try:
            asked = [(probe.messages, len(probe.answer)) for probe in build.probes[:TIMED_PROBES]]
            return [
                (await self._generate(f"{build.model}:{version}", *probe))[1] for probe in asked
            ]
        except RatchetError:
            return []

    async def _generate(
        self, tag: str, messages: tuple[Message, ...], tokens: int
    ) -> tuple[list[ServedToken], Timing]:
        """What `tag` answers greedily, with the log-probability of each token, and how long it
        took.
        """
        body = {
            "model": tag,
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": max(1, tokens),
            "logprobs": True,
            "top_logprobs": 1,
        }
        async with self._translate_errors():
            answer = await self._request("POST", "/v1/chat/completions", body, _LOADING_SECONDS)
            content = answer.json()
        try:
            said = [
                ServedToken(_text(token), float(token["logprob"]))
                for token in content["choices"][0]["logprobs"]["content"]
            ]
            return said, Timing(answer.elapsed.total_seconds(), len(said))
        except (KeyError, IndexError, TypeError) as error:
            raise TargetRefused(f"{tag} answered without log-probabilities: {error!r}") from error

    async def _request_json(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        timeout: float = _LOADING_SECONDS,
    ) -> dict[str, Any]:
        async with self._translate_errors():
            content: dict[str, Any] = (await self._request(method, path, body, timeout)).json()
            return content

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None, timeout: float
    ) -> httpx.Response:
        answer = await self._client.request(method, self._url + path, json=body, timeout=timeout)
        if answer.is_error:
            raise TargetRefused(_reason(answer))
        return answer

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise TargetUnavailable(
                f"{self._url} does not answer: {error!r}; start it with: python -m ratchet.serving"
            ) from error
        except ValueError as error:
            raise TargetRefused(f"{self._url} does not answer as the host does: {error}") from error


def _tag(model: str, version: str) -> str:
    return f"{model}:{version}"


def _previous(model: str) -> str:
    return f"{model}:previous"


def _challenger(model: str) -> str:
    return f"{model}:challenger"


def _text(token: dict[str, Any]) -> str:
    """A token's text; from its bytes, since a part of a character has no text of its own."""
    return (
        bytes(token["bytes"]).decode(errors="replace")
        if token.get("bytes")
        else str(token["token"])
    )


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}: {answer.text[:200]}"
