"""The embedded host makes the same tokens of a conversation as training and evaluation, and an
application gets the evaluated answer; a difference undoes the deployment.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ratchet.serving.api import build_app
from ratchet.serving.engine import EngineOptions
from ratchet.serving.host import ServingHost
from services.registry.deploy.served_prompts import content_difference, prompt_difference
from services.registry.deploy.targets.llamacpp import LlamaCppTarget
from services.registry.deploy.targets.target import MergedModel
from services.registry.deploy.verification import ServedToken, VerificationResult
from services.trainer.data.tokenization import encode_prompt
from services.trainer.protocol import Generate, Generated, Loaded
from services.trainer.training.base_tokenizer import load_vocabulary
from shared.config.models import load_models
from shared.config.template_variables import DEFAULT_VARIABLES, TemplateVariables
from shared.events import Message, Probe
from shared.identity import digest_of_file
from shared.logs import configure
from tests.bases import templates
from tests.bases.twins import TrainingProcessHere, question
from tests.support.tiny_models import make, save_base

CONVERSATIONS = (
    question("What is the  3rd one?\n\n1. this"),
    (Message(role="system", content="Be brief."), *question("Hi")),
    (*question("a"), Message(role="assistant", content="b"), *question("c")),
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    options = EngineOptions(context=256, slots=1, threads=1)
    log = configure("test", "error", "text")
    app = build_app(ServingHost(tmp_path / "serving", tmp_path, options, 3, log))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        yield client


async def verified(
    client: httpx.AsyncClient,
    folder: Path,
    trained: str,
    served: str | None = None,
    template: TemplateVariables = DEFAULT_VARIABLES,
    adds_first_token: bool = False,
) -> VerificationResult:
    """Evaluate a base with one template; serve it with another, or with other variables."""
    pair = make("qwen2", folder, served or trained, adds_first_token)
    save_base(pair, folder / "base", trained, adds_first_token)
    process = TrainingProcessHere()
    assert isinstance(process.load(folder / "base"), Loaded)
    evaluated = process.request(
        Generate(adapter=None, probes=CONVERSATIONS, prompts=(), max_tokens=200, max_new_tokens=6)
    )
    assert isinstance(evaluated, Generated)
    probes = tuple(
        Probe(messages=messages, answer=answer.tokens, prompt_tokens=answer.prompt_tokens)
        for messages, answer in zip(CONVERSATIONS, evaluated.probes, strict=True)
    )
    assert all(probe.prompt_tokens for probe in probes)
    target = LlamaCppTarget("http://127.0.0.1", client, template=template)
    merged = MergedModel("m", "v1_x", pair.file, digest_of_file(pair.file), probes=probes)
    await target.push(merged)
    return await target.verify(merged)


@pytest.mark.parametrize(
    "template", ["PLAIN", "THINKS_IF_IT_LIKES", "THINKS_UNLESS_TOLD", "FORGETS_BLOCKS", "DATED"]
)
async def test_prompts_have_the_tokens_of_the_evaluation(
    template: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    result = await verified(client, tmp_path, getattr(templates, template))
    assert result.passed, result.reasons


@pytest.mark.parametrize("template", ["PLAIN", "WRITES_FIRST_TOKEN"])
async def test_the_first_token_is_the_hosts(
    template: str, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    source = templates.PLAIN if template == "PLAIN" else "<end>" + templates.PLAIN
    result = await verified(client, tmp_path, source, adds_first_token=True)
    assert result.passed, result.reasons


@pytest.mark.model
@pytest.mark.parametrize("name", list(load_models(Path("models")).files))
async def test_prompts_of_declared_models_are_the_hosts(
    name: str, bases: Path, tmp_path: Path
) -> None:
    models = load_models(Path("models"))
    model = models.get(name)
    prompts = [each.messages for each in models.golden(name)]
    prompts += [each.messages for each in models.regression_set(name)]
    prompts += [each.messages for each in models.regression_prompts(name)]
    vocabulary = load_vocabulary(str(bases / model.base.training), model.template_variables)
    file = bases / model.base.serving
    options, log = EngineOptions(context=64, slots=1, threads=1), configure("test", "error", "text")
    app = build_app(ServingHost(tmp_path, bases, options, 1, log))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        target = LlamaCppTarget("http://127.0.0.1", client, template=model.template_variables)
        await target.push(MergedModel("m", "v1_x", file, digest_of_file(file)))
        for messages in prompts:
            served = await client.post(
                "http://127.0.0.1/admin/models/m:v1_x/prompt-tokens",
                json={"messages": [message.model_dump() for message in messages]},
            )
            assert (
                prompt_difference(
                    encode_prompt(vocabulary, messages, 4096), served.json()["tokens"]
                )
                == ""
            ), messages
    assert len(prompts) > 50


async def test_another_thinking_setting_fails_verification(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    result = await verified(
        client,
        tmp_path,
        templates.THINKS_UNLESS_TOLD,
        template=TemplateVariables(enable_thinking=True),
    )
    assert [reason for reason in result.reasons if "differ from token" in reason]


async def test_an_answer_taken_for_thoughts_fails_verification(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    result = await verified(client, tmp_path, templates.PLAIN, templates.THINKS_ALWAYS)
    assert [reason for reason in result.reasons if "takes the answer for thoughts" in reason]
    assert [reason for reason in result.reasons if "differ from token" in reason]


async def test_an_application_may_set_variables_itself(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await verified(client, tmp_path, templates.THINKS_UNLESS_TOLD)
    usage = [
        (
            await client.post(
                "http://127.0.0.1/v1/chat/completions",
                json={
                    "model": "m:v1_x",
                    "messages": [{"role": "user", "content": "Hi"}],
                    "max_tokens": 1,
                    **own,
                },
            )
        ).json()["usage"]["prompt_tokens"]
        for own in ({}, {"chat_template_kwargs": {"enable_thinking": True}})
    ]
    assert usage[0] - usage[1] == len("\n</think>\n\n") - 1  # th is one token


def test_differences_are_named() -> None:
    assert prompt_difference([1, 2], [1, 2]) == ""
    assert "token 2 on (3 instead of 2)" in prompt_difference([1, 2], [1, 3])
    assert "token 3 on (none instead of 4)" in prompt_difference([1, 2, 4], [1, 2])
    answer = [ServedToken(" yes", -1.0), ServedToken("", -1.0)]
    assert content_difference(answer, "yes") == content_difference([], "") == ""
    assert content_difference([ServedToken("\ufffd", -1.0)], "😀") == ""
    assert "empty text" in content_difference(answer, " ")
    assert "gets 'no' instead of 'yes'" in content_difference(answer, "no")
