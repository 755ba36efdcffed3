"""The pages as HTML: contents, empty states, errors, and escaping."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from services.registry.api import routes as api
from services.registry.api.authorization import COOKIE
from services.registry.app import Registry
from services.registry.pages import models
from services.registry.pages import routes as pages
from services.registry.rollout.holds import hold
from services.registry.store.queries import MeanReward
from services.registry.store.tables import RunRow, WithdrawnExampleRow
from shared.clock import SystemClock
from shared.config.model_file import Models
from shared.messaging.topics import TRAINING_BATCHES
from shared.observability.health import Health
from shared.storage.object_store import MemoryStore
from tests.registry.credentials import OPERATE, TOKENS
from tests.registry.pages.demo_data import HOSTILE, Showroom, run_of
from tests.registry.samples import DatabaseFixture

ORIGIN = {"Origin": "http://registry"}


@pytest.fixture
async def room(registry_db: DatabaseFixture, tmp_path: Path) -> Showroom:
    room = Showroom(registry_db, tmp_path)
    await room.fill()
    return room


@asynccontextmanager
async def visitor(room: Showroom) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=room.app)
    signed_in = {COOKIE: OPERATE}
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://registry",
        headers={"Accept": "text/html"},
        cookies=signed_in,
    ) as client:
        yield client


async def page(room: Showroom, path: str, status: int = 200) -> str:
    async with visitor(room) as client:
        answer = await client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    return answer.text


class Structure(HTMLParser):
    """The tags of a page: whether each that is opened is closed, and what a policy without inline
    code forbids.
    """

    EMPTY = frozenset(["meta", "link", "input", "br", "wbr", "polyline", "circle", "line", "img"])

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.faults += [
            f"{tag} {name}" for name in said if name.startswith("on") or name == "style"
        ]
        if (tag == "script" and "src" not in said) or tag == "style":
            self.faults.append(f"inline {tag}")
        self.links += [
            value for name, value in attrs if name in ("href", "src", "action", "hx-get") and value
        ]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY and (not self.open or self.open.pop() != tag):
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        self.text += data


def paths(room: Showroom) -> list[str]:
    champion, aliases = room.registry_db.champion, room.registry_db.aliases
    return [
        "/",
        "/models/support",
        f"/models/support/versions/{champion}",
        f"/models/support/versions/{champion}/lineage",
        f"/models/support/compare?first={aliases.previous}&second={champion}",
        "/models/support/compare",
        f"/models/support/runs/{run_of(2)}",
        f"/models/support/runs/{run_of(4)}",
        f"/models/support/runs/{run_of(4)}/progress",
        "/models/support/rollback",
        "/models/support/promote",
        "/models/support?moved=2",
    ]


async def test_every_page_is_well_formed_and_has_nothing_inline_and_links_lead_somewhere(
    room: Showroom,
) -> None:
    found = set[str]()
    for path in paths(room):
        structure = Structure(await page(room, path))
        assert (structure.faults, structure.open) == ([], []), path
        assert len(set(structure.ids)) == len(structure.ids), path
        found.update(structure.links)
    assert not [link for link in found if not link.startswith(("/", "#"))]
    async with visitor(room) as client:
        for link in sorted(found - {"/docs", "/metrics", "#content"}):
            assert (await client.get(link)).status_code == httpx.codes.OK, link


async def test_models_show_champion_last_verdict_trend_and_what_is_in_training(
    room: Showroom,
) -> None:
    text = await page(room, "/")
    assert room.registry_db.champion in text
    assert "held-out -3.910 → -0.210" in text
    assert "<polyline" in text
    assert "held-out: +3.5000 nats per token" in text
    assert "step 9 of 24" in text


async def test_a_model_shows_everything_that_happened_on_one_time_line(room: Showroom) -> None:
    text = Structure(await page(room, "/models/support")).text
    line = text[text.index("Timeline") :]
    told = [
        line.index(word)
        for word in ("challenger", "rejected", "deployed", "promoted", "bootstrapped")
    ]
    assert told == sorted(told)  # newest first
    assert line.count("promoted") == 2
    assert "not above +0.0050" in line
    assert "Live reward" not in text


async def test_rewards_in_use_are_shown_where_they_are_known(
    room: Showroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = room.registry_db.champion
    monkeypatch.setattr(
        models, "rewards_by_version", lambda session, model: {champion: MeanReward(0.4321, 77)}
    )
    text = await page(room, "/models/support")
    assert "Live reward" in text
    assert "+0.432" in text
    assert "mean live reward</span>" in text
    assert "mean live reward" in text


async def test_a_version_shows_how_it_was_judged_made_and_of_what(room: Showroom) -> None:
    text = Structure(await page(room, f"/models/support/versions/{room.registry_db.champion}")).text
    assert re.search(r"held-out\s*24\s*-0.600\s*-0.210\s*\+0.390", text)
    assert "+0.270 to +0.530, margin 0.02" in text
    assert "exact match" in text
    assert "learning rate" in text
    assert f"adapters/support/{run_of(1)}/manifest.json" in text
    assert text.count("sha256:") >= 4
    assert re.search(r"near duplicate\s*3", text)
    assert "/shop" in text
    assert "Table of the 24 points" in text


async def test_hostile_text_is_shown_and_stays_text(room: Showroom) -> None:
    raw = await page(room, f"/models/support/versions/{room.registry_db.champion}")
    shown = [
        path
        for path in range(3)
        if HOSTILE in Structure(await page(room, f"/models/support/runs/{run_of(path)}")).text
    ]
    assert shown, "no batch drew the hostile example"
    assert "<img" not in raw
    assert "49" not in re.findall(r"&gt;(\d+)", raw)
    raw = await page(room, f"/models/support/runs/{run_of(shown[0])}")
    assert "<script>window" not in raw
    assert "<img" not in raw


async def test_examples_that_were_withdrawn_are_not_shown(room: Showroom) -> None:
    path = f"/models/support/runs/{run_of(1)}"
    ids = re.findall(r"/shop\|1-\w+", await page(room, path))
    assert ids
    gone = WithdrawnExampleRow(
        model="support",
        feedback_id=ids[0],
        batch_id=room.batches[1].batch_id,
        user="someone",
        offset=1,
    )
    room.registry_db.run(lambda session: session.add(gone))
    text = await page(room, path)
    assert ids[0] not in text
    assert "1 of the batch" in text


async def test_a_batch_that_cannot_be_read_is_said_and_the_rest_is_shown(room: Showroom) -> None:
    path = f"/models/support/versions/{room.registry_db.champion}"
    room.store.objects[room.batches[1].manifest.uri] = b"{}"
    text = await page(room, path)
    assert "The batch cannot be read" in text
    assert "ratchet dataset verify" in text
    assert "Evaluation" in text
    room.store.delete(room.batches[1].manifest.uri)
    assert "is not in the object store" in await page(room, path)
    assert "is not in the object store" in await page(room, f"{path}/lineage")


async def test_a_batch_announced_twice_is_one_batch(room: Showroom) -> None:
    await room.say(TRAINING_BATCHES, room.batches[1])
    assert "Batch 1 " in await page(room, f"/models/support/versions/{room.registry_db.champion}")


async def test_two_versions_are_compared_by_what_differs_and_answers_side_by_side(
    room: Showroom,
) -> None:
    aliases = room.registry_db.aliases
    text = Structure(
        await page(
            room, f"/models/support/compare?first={aliases.previous}&second={aliases.champion}"
        )
    ).text
    assert re.search(r"configuration · learning rate\s*0.001\s*0.002", text)
    assert "configuration · rank" not in text
    assert "I am sorry to hear that!" in text
    assert '{"queue":"workshop","priority":"p3","order":null}' in text
    assert "both" in text  # answered alike by both
    same = await page(
        room, f"/models/support/compare?first={aliases.champion}&second={aliases.champion}"
    )
    assert "both are the same version" in same


async def test_a_lineage_goes_from_feedback_to_deployment_down_to_the_base(room: Showroom) -> None:
    text = Structure(
        await page(room, f"/models/support/versions/{room.registry_db.champion}/lineage")
    ).text
    steps = [
        text.index(word)
        for word in (
            "feedback.scored partition 0, 9 to 16",
            "Number 1",
            "verdict",
            "adapter",
            "Champion",
            "on llamacpp",
        )
    ]
    assert steps == sorted(steps)
    assert "/shop|1-bad" in text
    assert "trained on no feedback" in text


async def test_a_run_without_a_version_has_a_page(room: Showroom) -> None:
    text = await page(room, f"/models/support/runs/{run_of(2)}")
    assert "look at the batch&#39;s examples" in text
    assert "not above +0.0050" in text
    assert "hx-get" not in text
    live = await page(room, f"/models/support/runs/{run_of(4)}")
    assert f'hx-get="/models/support/runs/{run_of(4)}/progress"' in live


async def test_a_run_that_has_ended_lets_its_page_be_loaded_anew(room: Showroom) -> None:
    async with visitor(room) as client:
        going = await client.get(f"/models/support/runs/{run_of(4)}/progress")
        ended = await client.get(f"/models/support/runs/{run_of(2)}/progress")
    assert "hx-refresh" not in going.headers
    assert ended.headers["hx-refresh"] == "true"
    assert "hx-get" not in ended.text


async def roll_back(
    room: Showroom, form: dict[str, str], headers: dict[str, str] = ORIGIN, path: str = "rollback"
) -> httpx.Response:
    async with visitor(room) as client:
        return await client.post(f"/models/support/{path}", data=form, headers=headers)


async def test_a_rollback_is_confirmed_made_and_told(
    room: Showroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WAIT_SECONDS", 0.0)
    before, after = room.registry_db.champion, room.registry_db.aliases.previous
    assert after is not None
    asked = Structure(await page(room, "/models/support/rollback")).text
    assert re.search(rf"{before}\s*champion[\s\S]*{after}\s*previous", asked)
    assert "0.56" in asked
    answer = await roll_back(room, {"to": after, "champion": before, "reason": " too terse "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/models/support?moved=4")
    assert (room.registry_db.champion, room.registry_db.aliases.previous) == (after, before)
    assert "Still deploying" in await page(room, answer.headers["location"])
    await room.reconcile()
    assert re.search(
        rf"{after} is serving again, after (less than )?\d+\.\d s",
        Structure(await page(room, answer.headers["location"])).text,
    )
    assert "too terse" in await page(room, "/models/support")
    # Whoever looks at an old address later is not told what holds no more.
    await roll_back(room, {"to": before, "champion": after, "reason": "forward again"})
    assert "has changed since" in await page(room, "/models/support?moved=4")
    assert 'id="move-result"' not in await page(room, "/models/support?moved=99")


async def test_a_challenger_is_promoted_by_hand(
    room: Showroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WAIT_SECONDS", 0.0)
    challenger, before = room.registry_db.aliases.challenger, room.registry_db.champion
    assert challenger is not None
    asked = await page(room, "/models/support/promote")
    assert "Its verdict was measured against" in asked
    answer = await roll_back(
        room, {"to": challenger, "champion": before, "reason": "read by hand"}, path="promote"
    )
    assert answer.status_code == httpx.codes.SEE_OTHER
    assert room.registry_db.champion == challenger


async def test_what_a_form_gets_wrong_is_said_and_changes_nothing(room: Showroom) -> None:
    aliases = room.registry_db.aliases
    good = {"to": str(aliases.previous), "champion": str(aliases.champion), "reason": "worse"}
    for form, status, says in (
        (good | {"reason": "  "}, 422, "Enter a reason"),
        (good | {"reason": "x" * 2001}, 422, "Enter a reason"),
        (good | {"champion": str(aliases.previous)}, 409, "is the champion now, no longer"),
        (good | {"to": "v7"}, 404, "support has no version"),
        (good | {"to": str(aliases.champion)}, 409, "is champion now"),
        ({"reason": "worse"}, 400, "has no version"),
    ):
        answer = await roll_back(room, form)
        assert (answer.status_code, says in answer.text) == (status, True), answer.text
        assert answer.headers["content-type"].startswith("text/html")
    assert (
        "worse" in (await roll_back(room, good | {"champion": "v9"})).text
    )  # what was typed is still there
    large = await roll_back(room, good | {"reason": "x" * 20_000})
    assert large.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert room.registry_db.aliases.champion == aliases.champion


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://elsewhere"},
        {"Origin": "null"},
        {"Origin": "http://registry.elsewhere"},
    ],
)
async def test_a_form_from_elsewhere_is_refused(room: Showroom, headers: dict[str, str]) -> None:
    aliases = room.registry_db.aliases
    form = {"to": str(aliases.previous), "champion": str(aliases.champion), "reason": "worse"}
    answer = await roll_back(room, form, headers)
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert "own pages" in answer.text
    assert room.registry_db.aliases.champion == aliases.champion


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/models/none", 404, "list of declared models"),
        ("/models/support/versions/v7", 404, "has no version &#39;v7&#39;"),
        ("/models/support/versions/v7/lineage", 404, "page of support"),
        ("/models/support/runs/none", 404, "has no run"),
        ("/models/support/moves/77", 404, "no move 77"),
        ("/models/support/compare?first=v7&second=v8", 404, "has no version"),
        ("/models/support/rollback?to=v7", 404, "has no version"),
        ("/models/support?moved=x", 422, "valid integer"),
        ("/nowhere", 404, "There is no page at /nowhere."),
    ],
)
async def test_errors_are_pages_that_say_where_to_go(
    room: Showroom, path: str, status: int, says: str
) -> None:
    text = await page(room, path, status)
    assert says in text
    assert not Structure(text).faults


async def test_a_hold_is_told_with_what_lifts_it(room: Showroom) -> None:
    assert 'id="hold"' not in await page(room, "/models/support")
    room.registry_db.run(
        lambda session: hold(
            session, "support", "monitor", "<b>twice</b> in a day", room.past.now()
        )
    )
    text = await page(room, "/models/support")
    assert "&lt;b&gt;twice&lt;/b&gt; in a day" in text
    assert "ratchet release support" in text


async def test_a_move_that_is_not_allowed_is_a_page(room: Showroom) -> None:
    assert "is champion now" in await page(
        room, f"/models/support/rollback?to={room.registry_db.champion}", 409
    )


async def test_programs_get_problem_details_as_before(room: Showroom) -> None:
    async with visitor(room) as client:
        for path, accept in (
            ("/nowhere", "*/*"),
            ("/api/nowhere", "text/html"),
            ("/api/models/none", "text/html"),
        ):
            answer = await client.get(path, headers={"Accept": accept})
            assert (answer.status_code, answer.headers["content-type"]) == (
                404,
                "application/problem+json",
            )


async def test_a_model_without_a_past_says_what_will_make_one(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    room = Showroom(registry_db, tmp_path)
    assert "A training run starts when a batch of feedback is complete" in await page(room, "/")
    model = await page(room, "/models/support")
    assert "ratchet feedback send" in model
    assert "The model file lists deploy targets" in model
    version = await page(room, f"/models/support/versions/{registry_db.champion}")
    assert "this is the unmodified base model" in version
    assert "trained on no feedback" in await page(
        room, f"/models/support/versions/{registry_db.champion}/lineage"
    )
    assert "is the only version" in await page(room, "/models/support/rollback")


async def test_where_nothing_is_declared_the_page_says_what_to_do(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    room = Showroom(registry_db, tmp_path)
    registry = Registry(
        registry_db.database, Models({}, tmp_path), room.publisher, room.deployer, room.runtime
    )
    room.app = api.build(registry, Health(SystemClock()), room.metrics.registry, lambda: TOKENS)
    pages.add_pages(room.app, registry, MemoryStore())
    assert "RATCHET_MODELS" in await page(room, "/")


async def test_a_run_that_failed_says_why_and_what_to_do(room: Showroom) -> None:
    def fail(run: RunRow | None) -> None:
        assert run is not None
        run.state, run.reason, run.advice = (
            "failed",
            "the loss is not finite",
            "lower the learning rate",
        )

    room.registry_db.run(lambda session: fail(session.get(RunRow, run_of(4))))
    text = await page(room, f"/models/support/runs/{run_of(4)}")
    assert "the loss is not finite" in text
    assert "lower the learning rate" in text
