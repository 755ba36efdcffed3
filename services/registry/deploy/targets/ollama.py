"""Ollama as a target: tags `<model>:<version>`, aliases `<model>:champion`, `<model>:previous` and
`<model>:challenger`, which are copies of tags.

A version is sent as a merged file, never as an adapter, which newer versions of Ollama refuse. A
copy is of a tag's manifest only, a few hundred bytes, so moving an alias is as fast for a large
model as for a small one.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import ollama

from services.registry.deploy.targets.modelfile import Modelfile, read_modelfile
from services.registry.deploy.targets.target import (
    MergedModel,
    TargetRefused,
    TargetState,
    TargetUnavailable,
)
from services.registry.deploy.verification import (
    TIMED_PROBES,
    Timing,
    VerificationResult,
    verify_texts,
)
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.errors import RatchetError
from shared.events import Digest, Message, Probe

_REQUEST_SECONDS = 10.0
_LOADING_SECONDS = 300.0
_CHUNK_BYTES = 1 << 20
_CHAMPION, _PREVIOUS, _CHALLENGER = "champion", "previous", "challenger"
_VERSION = re.compile(r"v\d+_.+")
_BLOB_DIGEST = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)


class OllamaTarget:
    """An Ollama at a base URL. `context` is the maximum of prompt and answer together, in tokens;
    with `threads` 0 Ollama chooses.

    Names fit Ollama's limit of 80 characters a part, since a model's name has at most 63 and a
    version's fewer.
    """

    def __init__(
        self,
        location: str,
        client: httpx.AsyncClient,
        api: ollama.AsyncClient,
        context: int,
        threads: int = 0,
        name: str = "ollama",
        template: TemplateVariables = DEFAULT_VARIABLES,
    ) -> None:
        self._url = location.rstrip("/")
        self._client = client
        self._api = api
        self._context = context
        self._threads = threads
        self._template = template
        # By manifest digest: a tag's manifest determines the file that the tag consists of.
        self._file_digests: dict[str, Digest] = {}
        self.name = name

    supports_canary = True

    def served_name(self, model: str) -> str:
        return _tag(model, _CHAMPION)

    def served_name_of(self, model: str, version: str) -> str:
        return _tag(model, version)

    async def inspect(self, model: str) -> TargetState:
        manifests = await self._manifests(model)
        versions = {tag: manifest for tag, manifest in manifests.items() if _VERSION.fullmatch(tag)}
        named = {manifest: version for version, manifest in versions.items()}
        digests = {
            version: await self._file_digest(_tag(model, version), manifest)
            for version, manifest in versions.items()
        }
        champion, previous, challenger = (
            named.get(manifests.get(alias, "")) for alias in (_CHAMPION, _PREVIOUS, _CHALLENGER)
        )
        return TargetState(champion, previous, digests, challenger)

    async def push(self, merged: MergedModel) -> None:
        tag = _tag(merged.model, merged.version)
        present = (await self.inspect(merged.model)).versions.get(merged.version)
        if present == merged.digest:
            return
        if present is not None:
            raise TargetRefused(
                f"{tag} contains {present} and versions never change; run `ollama rm {tag}` to "
                f"make room for {merged.digest}"
            )
        modelfile = await self._modelfile(merged)
        await self._upload(merged)
        await self._create(tag, merged.digest, modelfile)
        if (await self.inspect(merged.model)).versions.get(merged.version) is None:
            raise TargetRefused(f"{self._url} reported success for {tag}, but does not list it")

    async def verify(self, merged: MergedModel) -> VerificationResult:
        """Compare the file's digest, the chat template and the texts of greedy answers, requested
        one after the other: Ollama returns no log-probabilities.
        """
        champion = (await self.inspect(merged.model)).champion
        before = (
            await self._timings(merged, champion) if champion not in (None, merged.version) else []
        )
        tag = _tag(merged.model, merged.version)
        modelfile = await self._modelfile(merged)
        async with self._translate_errors(_REQUEST_SECONDS):
            shown = await self._api.show(tag)
        answers = [await self._generate(tag, probe) for probe in merged.probes]
        result = verify_texts(
            merged.digest,
            _parse_digest(shown.modelfile),
            merged.probes,
            [text for text, _ in answers],
        )
        result = result.with_timings([timing for _, timing in answers[:TIMED_PROBES]], before)
        if modelfile.template is None or shown.template == modelfile.template:
            return result
        return result.with_failure(
            f"{tag} has another chat template than the base: {shown.template!r}"
        )

    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        turns = [message.model_dump() for message in messages]
        options = {"temperature": 0.0, "num_predict": max_tokens}
        async with self._translate_errors(_LOADING_SECONDS):
            answer = await self._api.chat(
                _tag(model, version), turns, options=options, stream=False
            )
        return answer.message.content or ""

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        manifests = await self._manifests(model)
        async with self._translate_errors(_REQUEST_SECONDS):
            await self._api.copy(_tag(model, version), _tag(model, _CHAMPION))
            if previous is not None and previous in manifests:
                await self._api.copy(_tag(model, previous), _tag(model, _PREVIOUS))

    async def set_challenger(self, model: str, version: str | None) -> None:
        alias = _tag(model, _CHALLENGER)
        manifests = await self._manifests(model)
        async with self._translate_errors(_REQUEST_SECONDS):
            if version is not None:
                await self._api.copy(_tag(model, version), alias)
            elif _CHALLENGER in manifests:
                await self._api.delete(alias)

    async def remove(self, model: str, version: str) -> None:
        state = await self.inspect(model)
        if version in (state.champion, state.previous):
            alias = _CHAMPION if version == state.champion else _PREVIOUS
            raise TargetRefused(f"{_tag(model, alias)} names {version}; move the alias first")
        if version == state.challenger:
            raise TargetRefused(
                f"{_tag(model, _CHALLENGER)} names {version}, which is on a canary trial"
            )
        if version in state.versions:
            async with self._translate_errors(_REQUEST_SECONDS):
                await self._api.delete(_tag(model, version))

    async def _manifests(self, model: str) -> Mapping[str, str]:
        """Return the manifest digests of a model's tags; an alias has that of the version it was
        copied from.
        """
        async with self._translate_errors(_REQUEST_SECONDS):
            listed = await self._api.list()
        prefix = _tag(model, "")
        rows = [(row.model or "", row.digest or "") for row in listed.models]
        return {
            name.removeprefix(prefix): manifest
            for name, manifest in rows
            if name.startswith(prefix)
        }

    async def _file_digest(self, tag: str, manifest: str) -> Digest:
        """Return the digest of a tag's file, requested once per manifest."""
        if manifest not in self._file_digests:
            async with self._translate_errors(_REQUEST_SECONDS):
                self._file_digests[manifest] = _parse_digest((await self._api.show(tag)).modelfile)
        return self._file_digests[manifest]

    async def _modelfile(self, merged: MergedModel) -> Modelfile:
        return await asyncio.to_thread(
            read_modelfile, merged.path, self._context, self._threads, self._template
        )

    async def _upload(self, merged: MergedModel) -> None:
        """Upload the file unless it is there. Ollama checks that the received bytes have the digest
        recorded at the merge.
        """
        blob = f"{self._url}/api/blobs/{merged.digest}"
        async with self._translate_errors(None):
            if (
                await self._client.head(blob, timeout=_REQUEST_SECONDS)
            ).status_code == httpx.codes.OK:
                return
            response = await self._client.post(
                blob, content=_read_chunks(merged.path), timeout=_LOADING_SECONDS
            )
            if response.is_error:
                raise ollama.ResponseError(response.text, response.status_code)

    async def _create(self, tag: str, digest: Digest, modelfile: Modelfile) -> None:
        """Create a missing tag. An error may follow lines of progress, in a response of status
        200.
        """
        status = None
        async with self._translate_errors(_LOADING_SECONDS):
            progress = await self._api.create(
                tag,
                files={"model.gguf": digest},
                template=modelfile.template,
                parameters=modelfile.parameters,
                # Also distinguishes the manifests of two versions with the same weights.
                license=f"{tag}: made by Ratchet from a base model, whose licence applies",
                stream=True,
            )
            async for line in progress:
                status = line.status
        if status != "success":
            raise TargetRefused(f"{self._url} stopped creating {tag} at {status!r}")

    async def _timings(self, merged: MergedModel, version: str | None) -> list[Timing]:
        """Time the answers of another version; empty if it does not answer, which must not fail the
        verification of `merged`.
        """
        try:
            return [
                (await self._generate(f"{merged.model}:{version}", probe))[1]
                for probe in merged.probes[:TIMED_PROBES]
            ]
        except RatchetError:
            return []

    async def _generate(self, tag: str, probe: Probe) -> tuple[str, Timing]:
        """Return the greedy answer of `tag` and its duration as measured by Ollama, without
        loading the model.
        """
        messages = [message.model_dump() for message in probe.messages]
        options = {"temperature": 0.0, "num_predict": max(1, len(probe.answer))}
        async with self._translate_errors(_LOADING_SECONDS):
            answer = await self._api.chat(tag, messages, options=options, stream=False)
        nanoseconds = max(0, (answer.total_duration or 0) - (answer.load_duration or 0))
        return answer.message.content or "", Timing(
            nanoseconds / 1e9, (answer.eval_count or 0) if nanoseconds else 0
        )

    @asynccontextmanager
    async def _translate_errors(self, seconds: float | None) -> AsyncIterator[None]:
        """Limit the body to `seconds`, and raise its errors as TargetUnavailable or
        TargetRefused.
        """
        try:
            async with asyncio.timeout(seconds):
                yield
        except ollama.ResponseError as error:
            raise self._error_for(error) from error
        except (httpx.HTTPError, OSError) as error:
            raise TargetUnavailable(
                f"{self._url} does not answer: {error!r}; start it with: ollama serve"
            ) from error
        except ValueError as error:
            raise TargetRefused(f"{self._url} does not answer as Ollama does: {error}") from error

    def _error_for(self, error: ollama.ResponseError) -> TargetUnavailable | TargetRefused:
        if error.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return TargetUnavailable(f"{self._url} is busy: {error.error}")
        if "no space left" in error.error:
            return TargetRefused(
                f"the disk of {self._url} is full: {error.error}; free space in its model folder "
                "(OLLAMA_MODELS)"
            )
        return TargetRefused(f"{self._url} refuses: {error.error}")


def _tag(model: str, tag: str) -> str:
    return f"{model}:{tag}"


def _parse_digest(modelfile: str | None) -> Digest:
    """Return the digest of a tag's file, which is part of its blob's name."""
    match = _BLOB_DIGEST.search(modelfile or "")
    return f"sha256:{match[1]}" if match else "none"


async def _read_chunks(path: Path) -> AsyncIterator[bytes]:
    """Yield a file in chunks, read in worker threads."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk
