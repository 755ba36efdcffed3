"""The embedded llama.cpp host as a target: tags `<model>:<version>`, aliases `<model>`,
`<model>:previous` and `<model>:challenger`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from services.registry.deploy.served_prompts import content_difference, prompt_difference
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
from shared.auth.token_file import first_token
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.errors import RatchetError
from shared.events import Message, Probe

_LOADING_SECONDS = 300.0


class _Answer(NamedTuple):
    """An answer's tokens, and the text that an application gets."""

    tokens: Sequence[ServedToken]
    content: str
    timing: Timing


class LlamaCppTarget:
    """A host at a base URL. It reads merged files by path, so it runs on this machine or shares the
    folder. The first operate token of `tokens_file`, read at each use, administers it.
    """

    def __init__(
        self,
        location: str,
        client: httpx.AsyncClient,
        name: str = "llamacpp",
        tokens_file: Path | None = None,
        template: TemplateVariables = DEFAULT_VARIABLES,
    ) -> None:
        self._tokens_file = tokens_file
        self._url = location.rstrip("/")
        self._client = client
        self._template = template
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

    async def push(self, merged: MergedModel) -> None:
        body: dict[str, Any] = {"path": str(merged.path), "digest": merged.digest}
        if self._template != DEFAULT_VARIABLES:  # earlier hosts know no variables
            body["template"] = self._template.model_dump()
        await self._request_json("PUT", f"/admin/models/{_tag(merged.model, merged.version)}", body)

    async def verify(self, merged: MergedModel) -> VerificationResult:
        """Compare the digest that the host computed at the push, the tokens of each probe's prompt,
        and one greedy answer per probe, requested one after the other.
        """
        state = await self.inspect(merged.model)
        before = (
            await self._timings(merged, state.champion)
            if state.champion not in (None, merged.version)
            else []
        )
        tag = _tag(merged.model, merged.version)
        answers = [
            await self._generate(tag, probe.messages, len(probe.answer)) for probe in merged.probes
        ]
        result = verify_tokens(
            merged.digest,
            state.versions.get(merged.version, "none"),
            merged.probes,
            [answer.tokens for answer in answers],
        )
        for number, (probe, answer) in enumerate(zip(merged.probes, answers, strict=True), start=1):
            for difference in (
                await self._prompt_difference(tag, probe),
                # The beginning of a kept thought has no text for the application.
                "" if self._template.enable_thinking else content_difference(*answer[:2]),
            ):
                if difference:
                    result = result.with_failure(f"probe {number}: {difference}")
        return result.with_timings([answer.timing for answer in answers[:TIMED_PROBES]], before)

    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        body = {
            "model": _tag(model, version),
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        content = await self._request_json("POST", "/v1/chat/completions", body)
        try:
            return str(content["choices"][0]["message"].get("content") or "")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise TargetRefused(f"{self._url} answered without a message: {error!r}") from error

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
        """Delete a resource; a missing one is not an error."""
        async with self._translate_errors():
            response = await self._client.delete(
                self._url + path, timeout=10.0, headers=await self._headers(path)
            )
            if response.status_code not in (204, 404):
                raise TargetRefused(_error_message(response))

    async def _timings(self, merged: MergedModel, version: str | None) -> list[Timing]:
        """Time the answers of another version; empty if it does not answer, which must not fail the
        verification of `merged`.
        """
        try:
            probes = [(probe.messages, len(probe.answer)) for probe in merged.probes[:TIMED_PROBES]]
            return [
                (await self._generate(f"{merged.model}:{version}", *probe)).timing
                for probe in probes
            ]
        except RatchetError:
            return []

    async def _prompt_difference(self, tag: str, probe: Probe) -> str:
        """Compare a prompt's tokens with the host's, if the evaluation recorded them and the host,
        which may be an earlier version, tells its own.
        """
        if probe.prompt_tokens is None:
            return ""
        body = {"messages": [message.model_dump() for message in probe.messages]}
        path = f"/admin/models/{tag}/prompt-tokens"
        async with self._translate_errors():
            response = await self._client.post(
                self._url + path,
                json=body,
                timeout=_LOADING_SECONDS,
                headers=await self._headers(path),
            )
            if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
                return ""
            if response.is_error:
                raise TargetRefused(_error_message(response))
            return prompt_difference(probe.prompt_tokens, response.json()["tokens"])

    async def _generate(self, tag: str, messages: tuple[Message, ...], tokens: int) -> _Answer:
        """Return the greedy answer of `tag` with the log-probability of each token."""
        body = {
            "model": tag,
            "messages": [message.model_dump() for message in messages],
            "temperature": 0,
            "max_tokens": max(1, tokens),
            "logprobs": True,
            "top_logprobs": 1,
        }
        async with self._translate_errors():
            response = await self._request("POST", "/v1/chat/completions", body, _LOADING_SECONDS)
            content = response.json()
        try:
            choice = content["choices"][0]
            answer = [
                ServedToken(_text(token), float(token["logprob"]))
                for token in choice["logprobs"]["content"]
            ]
            timing = Timing(response.elapsed.total_seconds(), len(answer))
            return _Answer(answer, choice["message"].get("content") or "", timing)
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
        response = await self._client.request(
            method,
            self._url + path,
            json=body,
            timeout=timeout,
            headers=await self._headers(path),
        )
        if response.is_error:
            raise TargetRefused(_error_message(response))
        return response

    async def _headers(self, path: str) -> dict[str, str]:
        if self._tokens_file is None or not path.startswith("/admin/"):
            return {}
        token = await asyncio.to_thread(first_token, self._tokens_file, "operate")
        return {"Authorization": f"Bearer {token}"} if token else {}

    @asynccontextmanager
    async def _translate_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise TargetUnavailable(
                f"{self._url} does not answer: {error!r}; start it with: python -m ratchet.serving"
            ) from error
        except ValueError as error:
            raise TargetRefused(
                f"{self._url} does not answer as the llama.cpp host does: {error}"
            ) from error


def _tag(model: str, version: str) -> str:
    return f"{model}:{version}"


def _previous(model: str) -> str:
    return f"{model}:previous"


def _challenger(model: str) -> str:
    return f"{model}:challenger"


def _text(token: dict[str, Any]) -> str:
    """Return a token's text; from its bytes, since a part of a character has no text of its own."""
    return (
        bytes(token["bytes"]).decode(errors="replace")
        if token.get("bytes")
        else str(token["token"])
    )


def _error_message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}: {response.text[:200]}"
