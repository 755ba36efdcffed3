"""The playground: asking versions side by side, blind voting, limits, and serving that is down."""

import asyncio
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import httpx
import pytest

from services.registry.pages.playground.asking import (
    MAX_PROMPT_LENGTH,
    Playground,
    QuestionRefused,
    TooManyQuestions,
)
from services.registry.store.queries import unpublished_events
from shared.errors import Unavailable
from shared.events import FeedbackReceived, Message
from shared.messaging.codec import decode
from shared.messaging.topics import FEEDBACK_RECEIVED
from tests.registry.fake_target import FakeTarget
from tests.registry.pages.demo_data import HOSTILE, DemoRegistry
from tests.registry.pages.test_pages import ORIGIN, Structure, visitor
from tests.support.credentials import READ
from tests.support.registry_events import DatabaseFixture

PATH = "/models/support/playground"


@pytest.fixture
async def demo(registry_db: DatabaseFixture, tmp_path: Path) -> DemoRegistry:
    demo = DemoRegistry(registry_db, tmp_path)
    await demo.fill()
    return demo


async def ask(
    demo: DemoRegistry, versions: list[str], prompt: str = "How?", blind: bool = True
) -> httpx.Response:
    form = {"prompt": prompt} | {f"version {name}": "on" for name in versions}
    async with visitor(demo) as client:
        return await client.post(
            PATH, data=form | ({"blind": "on"} if blind else {}), headers=ORIGIN
        )


def both(demo: DemoRegistry) -> list[str]:
    assert demo.registry_db.aliases.previous is not None
    return [demo.registry_db.champion, demo.registry_db.aliases.previous]


async def shown(demo: DemoRegistry, path: str, status: int = 200) -> str:
    async with visitor(demo) as client:
        answer = await client.get(path)
    assert answer.status_code == status
    structure = Structure(answer.text)
    assert (structure.faults, structure.open) == ([], [])
    return answer.text


async def test_names_are_hidden_until_the_vote(demo: DemoRegistry) -> None:
    champion, previous = both(demo)
    demo.target.answers = {champion: HOSTILE, previous: "short"}
    asked = await ask(demo, [champion, previous], "Why & how?")
    assert asked.status_code == 303
    path = asked.headers["location"]
    before = await shown(demo, path)
    assert champion not in before
    assert previous not in before
    assert "Why &amp; how?" in before
    assert "<script>window" not in before
    answers = re.findall(r"<dt>([AB])</dt><dd>(.*?)</dd>", before, re.DOTALL)
    assert sorted(unescape(answer) for _, answer in answers) == sorted([HOSTILE, "short"])
    number = next(at for at, (_, answer) in enumerate(answers) if answer == "short")
    async with visitor(demo) as client:
        form = {"choice": str(number), "correction": " better\r\nlines "}
        voted = await client.post(path, data=form, headers=ORIGIN)
        assert voted.status_code == 303
        again = await client.post(path, data=form, headers=ORIGIN)
    assert again.status_code == 422
    assert "a vote on this comparison already" in again.text
    after = await shown(demo, path)
    assert f'of <a class="mono" href="/models/support/versions/{previous}"' in after
    rows = demo.registry_db.run(lambda session: unpublished_events(session, 1000))
    (event,) = [
        decode(
            row.value,
            [(name, text.encode()) for name, text in row.headers.items()],
            FeedbackReceived,
        ).event
        for row in rows
        if row.topic == FEEDBACK_RECEIVED
    ]
    assert (event.output, event.corrected_output) == ("short", "better\nlines")


async def test_without_blinding_names_are_shown(demo: DemoRegistry) -> None:
    asked = await ask(demo, both(demo), blind=False)
    text = await shown(demo, asked.headers["location"])
    assert [text.index(name) for name in both(demo)] == sorted(
        text.index(name) for name in both(demo)
    )


async def test_the_form_offers_what_is_deployed(demo: DemoRegistry) -> None:
    text = await shown(demo, PATH)
    champion, previous = both(demo)
    assert f'name="version {champion}" checked' in text
    assert f'name="version {previous}">' in text


async def test_faults_keep_the_question(demo: DemoRegistry) -> None:
    none = await ask(demo, [], "kept")
    assert none.status_code == 422
    assert "Choose 1 to 4 versions" in none.text
    assert ">kept</textarea>" in none.text
    unknown = await ask(demo, ["v9"], "kept")
    assert unknown.status_code == 422
    assert "unknown model" in unknown.text
    long = await ask(demo, both(demo), "x" * (MAX_PROMPT_LENGTH + 1))
    assert long.status_code == 422
    assert (await ask(demo, both(demo), "x" * 200_000)).status_code == 413
    demo.target.away = True
    down = await ask(demo, both(demo), "kept")
    assert down.status_code == 503
    assert "is there." in down.text
    assert "Serving does not answer" in await shown(demo, PATH, 503)


async def test_a_target_without_answers_is_explained(demo: DemoRegistry) -> None:
    demo.target.supports_canary = False
    assert "needs a target of the kind" in await shown(demo, PATH)
    assert (await ask(demo, both(demo))).status_code == 409


async def test_only_operators_ask_and_only_from_these_pages(demo: DemoRegistry) -> None:
    form = {"prompt": "How?", f"version {both(demo)[0]}": "on"}
    async with visitor(demo) as client:
        foreign = await client.post(PATH, data=form, headers={"Origin": "http://other"})
        assert foreign.status_code == 403
        client.cookies.clear()
        reader = {"Authorization": f"Bearer {READ}"}
        assert (await client.get(PATH, headers=reader)).status_code == 403
        assert (await client.post(PATH, data=form, headers=reader)).status_code == 403


class HangingTarget(FakeTarget):
    async def answer(
        self, model: str, version: str, messages: Sequence[Message], max_tokens: int
    ) -> str:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_few_questions_run_at_once_and_none_for_ever() -> None:
    playground, target = Playground(timeout_seconds=0.2), HangingTarget()
    questions = [
        asyncio.create_task(playground.ask("support", target, ["v1"], "How?")) for _ in range(2)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyQuestions):
        await playground.ask("support", target, ["v1"], "How?")
    for ended in await asyncio.gather(*questions, return_exceptions=True):
        assert isinstance(ended, Unavailable)
        assert "within 0.2 s" in str(ended)
    with pytest.raises(QuestionRefused, match="4 versions"):
        await playground.ask("support", target, ["v1"] * 5, "How?")


async def test_versions_are_listed_by_alias_then_newest() -> None:
    target = FakeTarget(versions={f"v{number}_x": "d" for number in (1, 2, 10, 9, 3)})
    target.champion, target.challenger, target.previous = "v2_x", "v9_x", "v1_x"
    rows = await Playground().versions("support", target)
    assert [(row.version, row.alias) for row in rows] == [
        ("v2_x", "champion"),
        ("v9_x", "challenger"),
        ("v1_x", "previous"),
        ("v10_x", ""),
        ("v3_x", ""),
    ]
