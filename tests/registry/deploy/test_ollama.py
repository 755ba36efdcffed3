"""The Ollama target, on a real Ollama and on a stateful fake with its interface and errors."""

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gguf
import httpx
import numpy as np
import ollama
import pytest
from sqlalchemy import select
from transformers import AutoTokenizer

from ratchet.local_stack.bases import SMOLLM2
from services.registry.deploy.deployer import Deployer
from services.registry.deploy.deployment_runner import DeployPolicy
from services.registry.deploy.merged_models import MergedModels
from services.registry.deploy.targets.ollama import OllamaTarget
from services.registry.deploy.targets.target import MergedModel, TargetRefused, TargetUnavailable
from services.registry.gguf import lora_delta as lora
from services.registry.gguf.merge import MergedFile, merge
from services.registry.handlers import checkpoint_saved
from services.registry.store.tables import OutboxRow, VersionRow
from shared.clock import SystemClock
from shared.events import DeploymentFailed, Message, Probe, ProbeToken, VersionDeployed
from shared.identity import digest_of_file
from shared.logs import configure
from tests.registry.ollama_servers import FakeOllama, OllamaServer, RealOllama
from tests.registry.reference import Reference
from tests.support.registry_events import CONTEXT, DatabaseFixture, checkpoint
from tests.support.runtime import runtime_of

CONTEXT_TOKENS = 512
_BOTH = ("support:champion", "support:challenger", "support:v2_x")
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Stage:
    """An Ollama, a target on it, and two versions with different weights; the first has the answers
    of its evaluation as probes.
    """

    server: OllamaServer
    target: OllamaTarget
    api: ollama.AsyncClient
    first: MergedModel
    second: MergedModel


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.model)])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    server: OllamaServer
    if request.param == "fake":
        first, second = _small(tmp_path, "v1_x", 1.0), _small(tmp_path, "v2_x", 2.0)
        server = FakeOllama(
            says={first.digest: {"The sea?": "It is wide."}, second.digest: {"The sea?": "No."}}
        )
    else:
        server = RealOllama(tmp_path)
        first, second = request.getfixturevalue("real_builds")
    async with AsyncExitStack() as end:
        await server.start()
        end.push_async_callback(server.stop)
        client = await end.enter_async_context(httpx.AsyncClient())
        api = await end.enter_async_context(ollama.AsyncClient(server.url))
        yield Stage(
            server, OllamaTarget(server.url, client, api, CONTEXT_TOKENS, 1), api, first, second
        )


@pytest.fixture(scope="module")
def real_builds(
    bases: Path, merged: MergedFile, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MergedModel, MergedModel]:
    """The reference's adapter, merged correctly, and without the permutation, which gives other
    tokens at a clear lead. (The base alone would not do: its answers diverge from the reference's
    at near ties, and only texts are compared.)
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lora, "_PERMUTED", frozenset())
        patch.setattr(lora, "_UNPERMUTED", frozenset({"llama"}))
        wrong = merge(
            bases / SMOLLM2 / "model.gguf",
            reference.adapter,
            tmp_path_factory.mktemp("wrong") / "model.gguf",
        )
    return (
        MergedModel("support", "v1_x", merged.path, merged.digest, {}, reference.probes),
        MergedModel("support", "v2_x", wrong.path, wrong.digest),
    )


def _small(folder: Path, version: str, weight: float, jinja: str = CHATML) -> MergedModel:
    """Write a GGUF file with the metadata of a model and one weight."""
    path = folder / f"{version}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<none>", "<|im_start|>", "<|im_end|>"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(jinja)
    writer.add_tensor("output.weight", np.full((2, 32), weight, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    answer = (("It", 2.0), (" is", 3.0), (" wide", 0.1), (".", 2.0), ("<|im_end|>", 4.0))
    tokens = tuple(ProbeToken(text=text, logprob=-0.1, lead=lead) for text, lead in answer)
    probe = Probe(messages=(Message(role="user", content="The sea?"),), answer=tokens)
    return MergedModel("support", version, path, digest_of_file(path), {}, (probe,))


async def test_push_creates_a_tag_once_and_never_changes_it(stage: Stage) -> None:
    await stage.target.push(stage.first)
    serving = await stage.target.inspect("support")
    assert (serving.champion, serving.previous, serving.versions) == (
        None,
        None,
        {"v1_x": stage.first.digest},
    )
    tags = (await stage.api.list()).models
    await stage.target.push(stage.first)
    assert (await stage.api.list()).models == tags
    with pytest.raises(TargetRefused, match="versions never change"):
        await stage.target.push(replace(stage.second, version="v1_x"))
    assert (await stage.api.list()).models == tags


async def test_verification_passes_only_for_the_evaluated_version(stage: Stage) -> None:
    await stage.target.push(stage.first)
    finding = await stage.target.verify(stage.first)
    assert finding.passed, finding.reasons
    assert finding.tokens == sum(len(probe.answer) for probe in stage.first.probes)
    assert finding.seconds_per_token is not None
    assert finding.seconds_per_token_before is None
    await stage.target.push(stage.second)
    verification = await stage.target.verify(replace(stage.second, probes=stage.first.probes))
    assert not verification.passed
    assert all("probe" in reason for reason in verification.reasons)
    claimed = await stage.target.verify(replace(stage.second, digest=stage.first.digest, probes=()))
    assert claimed.reasons == (
        f"the served file has digest {stage.second.digest}, the merged one {stage.first.digest}",
    )
    await stage.target.switch("support", "v1_x", None)
    compared = await stage.target.verify(replace(stage.second, probes=stage.first.probes))
    assert compared.seconds_per_token_before is not None


async def test_switch_moves_aliases_and_aliased_versions_stay(stage: Stage) -> None:
    third = replace(stage.second, version="v3_x")
    for build in (stage.first, stage.second, third):
        await stage.target.push(build)
    await stage.target.switch("support", "v1_x", None)
    assert stage.target.served_name("support") == "support:champion"
    assert (await stage.target.inspect("support")).champion == "v1_x"
    await stage.target.switch("support", "v2_x", "v1_x")
    serving = await stage.target.inspect("support")
    # The second and the third have the same weights, and are distinguished.
    assert (serving.champion, serving.previous, set(serving.versions)) == (
        "v2_x",
        "v1_x",
        {"v1_x", "v2_x", "v3_x"},
    )
    for version in ("v1_x", "v2_x"):
        with pytest.raises(TargetRefused, match="move the alias"):
            await stage.target.remove("support", version)
    await stage.target.remove("support", "v3_x")
    await stage.target.remove("support", "v9_x")
    assert set((await stage.target.inspect("support")).versions) == {"v1_x", "v2_x"}
    with pytest.raises(TargetRefused, match="not found"):
        await stage.target.switch("support", "v9_x", None)
    assert (await stage.target.inspect("support")).champion == "v2_x"


async def test_challenger_is_served_with_the_champion_and_protected(
    stage: Stage,
) -> None:
    for build in (stage.first, stage.second):
        await stage.target.push(build)
    await stage.target.switch("support", "v1_x", None)
    await stage.target.set_challenger("support", "v2_x")
    serving = await stage.target.inspect("support")
    assert (serving.champion, serving.challenger) == ("v1_x", "v2_x")
    assert stage.target.served_name_of("support", "v2_x") == "support:v2_x"
    prompt = [{"role": "user", "content": "The sea?"}]
    answers = {
        name: await stage.api.chat(name, prompt, options={"temperature": 0, "num_predict": 8})
        for name in _BOTH
    }
    asked = await stage.target.answer(
        "support", "v2_x", (Message(role="user", content="The sea?"),), 8
    )
    assert asked == answers["support:v2_x"].message.content
    assert answers["support:challenger"].message.content == answers["support:v2_x"].message.content
    assert (
        answers["support:champion"].message.content != answers["support:challenger"].message.content
    )
    with pytest.raises(TargetRefused, match="on a canary trial"):
        await stage.target.remove("support", "v2_x")
    for _ in range(2):
        await stage.target.set_challenger("support", None)
    serving = await stage.target.inspect("support")
    assert (serving.champion, serving.challenger, set(serving.versions)) == (
        "v1_x",
        None,
        {"v1_x", "v2_x"},
    )
    await stage.target.remove("support", "v2_x")


class _NoUploadTarget(OllamaTarget):
    """Uploads nothing, as if the file had been pruned before the tag was created."""

    async def _upload(self, build: MergedModel) -> None:
        return


async def test_error_after_progress_lines_is_raised(stage: Stage) -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(TargetRefused, match="no such file"):
            await _NoUploadTarget(stage.server.url, client, stage.api, CONTEXT_TOKENS, 1).push(
                stage.first
            )
    assert (await stage.target.inspect("support")).versions == {}


async def test_altered_upload_is_refused(stage: Stage) -> None:
    with pytest.raises(TargetRefused, match="digest mismatch"):
        await stage.target.push(replace(stage.first, digest=stage.second.digest))


async def test_unrelated_tags_are_ignored(stage: Stage) -> None:
    await stage.target.push(stage.first)
    await stage.api.copy("support:v1_x", "support:mine")
    await stage.api.copy("support:v1_x", "supporters:v5_x")
    assert set((await stage.target.inspect("support")).versions) == {"v1_x"}


class _OneFileModels(MergedModels):
    """Merged models with the same file for every version."""

    def __init__(self, registry_db: DatabaseFixture, build: MergedModel) -> None:
        self._books, self._one = registry_db, build

    async def get(self, model: str, name: str) -> MergedModel:
        def record(version: VersionRow | None) -> None:
            assert version is not None
            version.merged_digest = self._one.digest

        self._books.run(lambda session: record(session.get(VersionRow, (model, name))))
        return replace(self._one, version=name, probes=())

    async def delete(self, model: str, name: str) -> None:
        return

    async def versions_on_disk(self, model: str) -> Collection[str]:
        return ()


async def test_deployments_resume_after_an_outage(stage: Stage, tmp_path: Path) -> None:
    """One hour of the deployer's back-off, without the waits: after 1, 2, 4 ... 64 s and then
    every 120 s, that is 7 + (3600 - 127) / 120 = 36 attempts, with two promotions meanwhile.
    """
    registry_db = DatabaseFixture(f"sqlite:///{tmp_path}/registry.db")
    clock, log = SystemClock(), configure("test", "error", "text")
    deployer = Deployer(
        registry_db.database,
        {"support": [stage.target]},
        _OneFileModels(registry_db, stage.first),
        DeployPolicy(keep_versions=1),
        runtime_of("registry", clock, log=log),
    )
    assert await deployer.reconcile("support", stage.target)
    base = registry_db.champion
    assert (await stage.target.inspect("support")).champion == base
    await stage.server.stop()
    for attempt in range(36):
        assert not await deployer.reconcile("support", stage.target)
        if attempt in (9, 19):
            outcome = checkpoint(f"r{attempt}", registry_db.champion)
            registry_db.run(partial(checkpoint_saved, event=outcome, context=CONTEXT))
    with pytest.raises(TargetUnavailable, match="ollama serve"):
        await stage.target.inspect("support")
    await stage.server.start()
    assert await deployer.reconcile("support", stage.target)
    serving = await stage.target.inspect("support")
    assert (serving.champion, serving.previous) == (
        registry_db.champion,
        registry_db.aliases.previous,
    )
    assert len({base, serving.champion, serving.previous}) == 3
    event_types = [
        row.headers["ce_type"]
        for row in registry_db.run(
            lambda session: session.scalars(select(OutboxRow).order_by(OutboxRow.id)).all()
        )
    ]
    outcomes = [
        name
        for name in event_types
        if name in (DeploymentFailed.type_name(), VersionDeployed.type_name())
    ]
    # One failure for each version that was champion, independent of the number of attempts.
    assert outcomes == [
        VersionDeployed.type_name(),
        *[DeploymentFailed.type_name()] * 3,
        VersionDeployed.type_name(),
    ]
    registry_db.close()


@pytest.mark.model
async def test_ollama_prompt_matches_the_base_tokenizer(
    bases: Path, tmp_path: Path, real_builds: tuple[MergedModel, MergedModel]
) -> None:
    """Ollama counts as many prompt tokens as the base's tokenizer for the same conversation."""
    tokenizer = AutoTokenizer.from_pretrained(bases / SMOLLM2)
    server = RealOllama(tmp_path)
    await server.start()
    try:
        async with httpx.AsyncClient() as client, ollama.AsyncClient(server.url) as api:
            target = OllamaTarget(server.url, client, api, CONTEXT_TOKENS, 1)
            await target.push(real_builds[0])
            details = await api.show("support:v1_x")
            assert {" ".join(line.split()) for line in (details.parameters or "").splitlines()} == {
                f"num_ctx {CONTEXT_TOKENS}",
                "num_thread 1",
                "repeat_penalty 1",
                'stop "<|im_end|>"',
            }
            for roles in (
                ["user"],
                ["system", "user"],
                ["user", "assistant", "user"],
                ["system", "user", "assistant", "user"],
            ):
                turns = [
                    {"role": role, "content": f"This is the {role}, number {position}."}
                    for position, role in enumerate(roles)
                ]
                answer = await api.chat(
                    "support:v1_x", turns, options={"temperature": 0, "num_predict": 1}
                )
                text = tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
                assert answer.prompt_eval_count == len(
                    tokenizer(text, add_special_tokens=False).input_ids
                )
    finally:
        await server.stop()


@dataclass
class Fake:
    server: FakeOllama
    target: OllamaTarget
    build: MergedModel


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[Fake]:
    server = FakeOllama()
    build = _small(tmp_path, "v1_x", 1.0)
    await server.start()
    async with httpx.AsyncClient() as client, ollama.AsyncClient(server.url) as api:
        yield Fake(server, OllamaTarget(server.url, client, api, CONTEXT_TOKENS, 1), build)
    await server.stop()


async def test_full_disk_is_reported_and_the_next_push_succeeds(fake: Fake) -> None:
    fake.server.full = True
    with pytest.raises(TargetRefused, match=r"disk of http.* is full.*OLLAMA_MODELS"):
        await fake.target.push(fake.build)
    fake.server.full = False
    await fake.target.push(fake.build)
    assert (await fake.target.inspect("support")).versions == {"v1_x": fake.build.digest}


async def test_uploaded_file_is_not_uploaded_again(fake: Fake) -> None:
    fake.server.stops_at = "parsing GGUF"
    with pytest.raises(TargetRefused, match="stopped creating support:v1_x"):
        await fake.target.push(fake.build)
    fake.server.stops_at = None
    await fake.target.push(fake.build)
    assert fake.server.uploads == 1


async def test_busy_ollama_is_unavailable(fake: Fake) -> None:
    fake.server.busy = True
    with pytest.raises(TargetUnavailable, match="busy"):
        await fake.target.inspect("support")


async def test_different_chat_template_fails_verification(fake: Fake) -> None:
    fake.server.says = {fake.build.digest: {"The sea?": "It is wide."}}
    fake.server.chooses_templates = True
    await fake.target.push(fake.build)
    (reason,) = (await fake.target.verify(fake.build)).reasons
    assert "another chat template" in reason
    assert "{{ .Prompt }}" in reason


async def test_another_service_at_the_address_is_detected(fake: Fake) -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, text="<html>It works!</html>")
    )
    async with (
        httpx.AsyncClient() as client,
        ollama.AsyncClient("http://127.0.0.1:9", transport=transport) as api,
    ):
        with pytest.raises(TargetRefused, match="does not answer as Ollama does"):
            await OllamaTarget("http://127.0.0.1:9", client, api, CONTEXT_TOKENS, 1).inspect(
                "support"
            )
