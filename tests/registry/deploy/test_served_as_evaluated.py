"""Verification end to end: a merged adapter, served by the real host, against the answers of
transformers and PEFT.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ratchet.local_stack.bases import SMOLLM2
from ratchet.serving.api import build_app as build_app
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from services.registry.deploy.targets.llamacpp import LlamaCppTarget
from services.registry.deploy.targets.target import MergedModel, TargetRefused, TargetUnavailable
from services.registry.gguf import lora_delta as lora
from services.registry.gguf.merge import MergedFile, merge
from shared.identity import digest_of
from shared.logs import configure
from tests.registry.reference import Reference

pytestmark = pytest.mark.model


@pytest.fixture
async def target(tmp_path: Path, merged: MergedFile) -> AsyncIterator[LlamaCppTarget]:
    host = ServingHost(
        tmp_path / "serving",
        merged.path.parent,
        EngineOptions(context=512, slots=1, threads=1),
        3,
        configure("test", "error", "text"),
    )
    app = build_app(host)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client,
    ):
        yield LlamaCppTarget("http://127.0.0.1", client)


def _build(version: str, merged: MergedFile, reference: Reference) -> MergedModel:
    return MergedModel(
        "support", version, merged.path, merged.digest, reference.adapter.files, reference.probes
    )


async def test_served_version_answers_as_evaluated(
    target: LlamaCppTarget, merged: MergedFile, reference: Reference
) -> None:
    await target.push(_build("v1_x", merged, reference))
    result = await target.verify(_build("v1_x", merged, reference))
    assert result.passed, result.reasons
    assert result.probes == len(reference.probes)
    assert result.mean_difference is not None
    assert result.mean_difference < 0.02
    assert result.seconds_per_token is not None
    assert result.seconds_per_token > 0
    assert result.seconds_per_token_before is None
    probe = reference.probes[0]
    answer = await target.answer("support", "v1_x", probe.messages, len(probe.answer))
    assert answer.startswith(probe.answer[0].text)
    with pytest.raises(TargetRefused, match="unknown model"):
        await target.answer("support", "v7_x", probe.messages, 8)
    await target.switch("support", "v1_x", None)
    await target.push(_build("v2_x", merged, reference))
    second = await target.verify(_build("v2_x", merged, reference))
    assert second.passed, second.reasons
    assert second.seconds_per_token_before is not None
    await target.switch("support", "v2_x", "v1_x")
    state = await target.inspect("support")
    assert (state.champion, state.previous) == ("v2_x", "v1_x")
    with pytest.raises(TargetRefused, match="move the alias"):
        await target.remove("support", "v1_x")
    await target.remove("support", "v9_x")


async def test_merge_without_permutation_fails_verification(
    target: LlamaCppTarget,
    reference: Reference,
    merged: MergedFile,
    bases: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lora, "_PERMUTED", frozenset())
    monkeypatch.setattr(lora, "_UNPERMUTED", frozenset({"llama"}))
    path = merged.path.with_name("wrong.gguf")
    wrong = merge(bases / SMOLLM2 / "model.gguf", reference.adapter, path)
    await target.push(_build("v1_x", wrong, reference))
    result = await target.verify(_build("v1_x", wrong, reference))
    assert not result.passed
    assert result.reasons


async def test_file_with_another_digest_is_refused(
    target: LlamaCppTarget, merged: MergedFile, reference: Reference
) -> None:
    claimed = MergedFile(merged.path, digest_of(b"what it should be"))
    with pytest.raises(TargetRefused, match="digest"):
        await target.push(_build("v1_x", claimed, reference))


async def test_missing_host_is_unavailable() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(TargetUnavailable, match=r"ratchet\.serving"):
            await LlamaCppTarget("http://127.0.0.1:9", client).inspect("support")
