"""Ollama as a target: tags `<model>:<version>`, aliases `<model>:champion`, `<model>:previous` and
`<model>:challenger`, which are copies of tags.

A version goes there as a merged file, never as an adapter, which newer versions of Ollama refuse. A
copy is of a tag's manifest alone, a few hundred bytes, so that moving an alias takes no longer for
a large model.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
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
from shared.errors import RatchetError
from shared.events import Digest, Probe

_REQUEST_SECONDS = 10.0
_LOADING_SECONDS = 300.0
_CHUNK_BYTES = 1 << 20
_CHAMPION, _PREVIOUS, _CHALLENGER = "champion", "previous", "challenger"
_VERSION = re.compile(r"v\d+_.+")
_BLOB_DIGEST = re.compile(r"^FROM .*sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)


class OllamaTarget:
    """An Ollama at a base URL. `context` is how many tokens prompt and answer may have together;
    `threads` of 0 are left to Ollama.

    Names fit what Ollama allows, 80 characters a part, since a model's name has at most 63 and a
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
    ) -> None:
        self._url = location.rstrip("/")
        self._client = client
        self._api = api
        self._context = context
        self._threads = threads
        self._file_digests: dict[
            str, Digest
            # by the digest of a manifest: a tag's manifest names the file that the tag is made of
        ] = {}
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

    async def push(self, build: MergedModel) -> None:
        tag = _tag(build.model, build.version)
        there = (await self.inspect(build.model)).versions.get(build.version)
        if there == build.digest:
            return
        if there is not None:
            raise TargetRefused(
                f"{tag} is made of {there} and versions never change; `ollama rm {tag}` "
                f"makes room for {build.digest}"
            )
        about = await asyncio.to_thread(read_modelfile, build.path, self._context, self._threads)
        await self._upload(build)
        await self._create(tag, build.digest, about)
        if (await self.inspect(build.model)).versions.get(build.version) is None:
            raise TargetRefused(f"{self._url} said that it made {tag}, and does not list it")

    async def verify(self, build: MergedModel) -> VerificationResult:
        """Ollama shows text alone, so that answers are compared by their text; each is given
        greedily, one after the other.
        """
        champion = (await self.inspect(build.model)).champion
        before = (
            await self._timings(build, champion) if champion not in (None, build.version) else []
        )
        tag = _tag(build.model, build.version)
        about = await asyncio.to_thread(read_modelfile, build.path, self._context, self._threads)
        async with self._translate_errors(_REQUEST_SECONDS):
            shown = await self._api.show(tag)
        answers = [await self._generate(tag, probe) for probe in build.probes]
        finding = verify_texts(
            build.digest,
            _parse_digest(shown.modelfile),
            build.probes,
            [text for text, _ in answers],
        )
        finding = finding.with_timings([timing for _, timing in answers[:TIMED_PROBES]], before)
        if about.template is None or shown.template == about.template:
            return finding
        return finding.with_failure(
            f"{tag} has another chat template than the base: {shown.template!r}"
        )

    async def switch(self, model: str, version: str, previous: str | None) -> None:
        there = await self._manifests(model)
        async with self._translate_errors(_REQUEST_SECONDS):
            await self._api.copy(_tag(model, version), _tag(model, _CHAMPION))
            if previous is not None and previous in there:
                await self._api.copy(_tag(model, previous), _tag(model, _PREVIOUS))

    async def set_challenger(self, model: str, version: str | None) -> None:
        alias = _tag(model, _CHALLENGER)
        there = await self._manifests(model)
        async with self._translate_errors(_REQUEST_SECONDS):
            if version is not None:
                await self._api.copy(_tag(model, version), alias)
            elif _CHALLENGER in there:
                await self._api.delete(alias)

    async def remove(self, model: str, version: str) -> None:
        serving = await self.inspect(model)
        if version in (serving.champion, serving.previous):
            alias = _CHAMPION if version == serving.champion else _PREVIOUS
            raise TargetRefused(f"{_tag(model, alias)} names {version}; move the alias first")
        if version == serving.challenger:
            raise TargetRefused(f"{_tag(model, _CHALLENGER)} names {version}, which is on trial")
        if version in serving.versions:
            async with self._translate_errors(_REQUEST_SECONDS):
                await self._api.delete(_tag(model, version))

    async def _manifests(self, model: str) -> Mapping[str, str]:
        """The digests of the manifests of a model's tags; an alias has that of the version it was
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
        """The digest of the file that a tag is made of, asked for once for each manifest."""
        if manifest not in self._file_digests:
            async with self._translate_errors(_REQUEST_SECONDS):
                self._file_digests[manifest] = _parse_digest((await self._api.show(tag)).modelfile)
        return self._file_digests[manifest]

    async def _upload(self, build: MergedModel) -> None:
        """Have the file there. Ollama itself checks that what arrives has the digest that the merge
        was recorded with.
        """
        blob = f"{self._url}/api/blobs/{build.digest}"
        async with self._translate_errors(None):
            if (
                await self._client.head(blob, timeout=_REQUEST_SECONDS)
            ).status_code == httpx.codes.OK:
                return
            answer = await self._client.post(
                blob, content=_read_chunks(build.path), timeout=_LOADING_SECONDS
            )
            if answer.is_error:
                raise ollama.ResponseError(answer.text, answer.status_code)

    async def _create(self, tag: str, digest: Digest, about: Modelfile) -> None:
        """Make a tag that is not there yet. An error may come after lines of progress, in an answer
        of status 200.
        """
        status = None
        async with self._translate_errors(_LOADING_SECONDS):
            progress = await self._api.create(
                tag,
                files={"model.gguf": digest},
                template=about.template,
                parameters=about.parameters,
                # Also what tells the manifests of two versions with the same weights apart.
                license=f"{tag}: made by Ratchet from a base model, whose licence applies",
                stream=True,
            )
            async for line in progress:
                status = line.status
        if status != "success":
            raise TargetRefused(f"{self._url} stopped making {tag} at {status!r}")

    async def _timings(self, build: MergedModel, version: str | None) -> list[Timing]:
        """How long another version takes; nothing when it does not answer, which is no fault of the
        build's.
        """
        try:
            return [
                (await self._generate(f"{build.model}:{version}", probe))[1]
                for probe in build.probes[:TIMED_PROBES]
            ]
        except RatchetError:
            return []

    async def _generate(self, tag: str, probe: Probe) -> tuple[str, Timing]:
        """What `tag` answers, and how long it took by Ollama's own account, without bringing it
        into memory.
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
                f"the disk of {self._url} is full: {error.error}; make room where its models "
                "lie (OLLAMA_MODELS)"
            )
        return TargetRefused(f"{self._url} refuses: {error.error}")


def _tag(model: str, tag: str) -> str:
    return f"{model}:{tag}"


def _parse_digest(modelfile: str | None) -> Digest:
    """The digest of the file that a tag is made of, which stands in the name of its blob."""
    found = _BLOB_DIGEST.search(modelfile or "")
    return f"sha256:{found[1]}" if found else "none"


async def _read_chunks(path: Path) -> AsyncIterator[bytes]:
    """A file, bit by bit, read beside the event loop."""
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield piece
