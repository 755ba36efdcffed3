"""The pages as HTML: contents, empty states, errors, and escaping."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from services.registry.api import routes as api
from services.registry.api.authorization import COOKIE
from services.registry.app import Registry
from services.registry.pages import models, rendering
from services.registry.pages import routes as pages
from services.registry.rollout.holds import hold
from services.registry.store.database import Session
from services.registry.store.queries import MeanReward
from services.registry.store.tables import DeploymentRow, RunRow, WithdrawnExampleRow
from shared.clock import SystemClock
from shared.config.models import Models
from shared.events import WaitingStatus
from shared.messaging.topics import DATASET_WAITING, TRAINING_BATCHES, TRAINING_ROLLBACKS
from shared.observability.health import Health
from shared.storage.object_store import MemoryStore
from tests.registry.pages.demo_data import HOSTILE, DemoRegistry, run_of
from tests.support.credentials import OPERATE, TOKENS
from tests.support.registry_events import DatabaseFixture, rejection, waiting_report

ORIGIN = {"Origin": "http://registry"}


@pytest.fixture
async def demo(registry_db: DatabaseFixture, tmp_path: Path) -> DemoRegistry:
    demo = DemoRegistry(registry_db, tmp_path)
    await demo.fill()
    return demo


@asynccontextmanager
async def visitor(demo: DemoRegistry) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=demo.app)
    signed_in = {COOKIE: OPERATE}
    async with httpx.AsyncClient(
        transport=transport,
        base_url="http://registry",
        headers={"Accept": "text/html"},
        cookies=signed_in,
    ) as client:
        yield client


async def page(demo: DemoRegistry, path: str, status: int = 200) -> str:
    async with visitor(demo) as client:
        answer = await client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    return answer.text


class Structure(HTMLParser):
    """Parses a page: unclosed tags, inline code, links, ids and text."""

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
        attributes = dict(attrs)
        self.faults += [
            f"{tag} {name}" for name in attributes if name.startswith("on") or name == "style"
        ]
        if (tag == "script" and "src" not in attributes) or tag == "style":
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


def paths(demo: DemoRegistry) -> list[str]:
    champion, aliases = demo.registry_db.champion, demo.registry_db.aliases
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
        "/models/support/pause",
        "/models/support/resume",
        "/models/support?moved=2",
        "/audit",
        "/audit?model=support&before=4",
    ]


async def test_pages_are_well_formed_without_inline_code(
    demo: DemoRegistry,
) -> None:
    links = set[str]()
    for path in paths(demo):
        structure = Structure(await page(demo, path))
        assert (structure.faults, structure.open) == ([], []), path
        assert len(set(structure.ids)) == len(structure.ids), path
        links.update(structure.links)
    assert not [link for link in links if not link.startswith(("/", "#"))]
    async with visitor(demo) as client:
        for link in sorted(links - {"/docs", "/metrics", "#content"}):
            assert (await client.get(link)).status_code == httpx.codes.OK, link


async def test_model_list_shows_champion_verdict_trend_and_runs(
    demo: DemoRegistry,
) -> None:
    text = await page(demo, "/")
    assert demo.registry_db.champion in text
    assert "held-out -3.910 → -0.210" in text
    assert "<polyline" in text
    assert "held-out: +3.5000 nats per token" in text
    assert "step 9 of 24" in text


async def test_model_page_has_complete_timeline(demo: DemoRegistry) -> None:
    text = Structure(await page(demo, "/models/support")).text
    line = text[text.index("Timeline") :]
    positions = [
        line.index(word)
        for word in ("challenger", "rejected", "deployed", "promoted", "bootstrapped")
    ]
    assert positions == sorted(positions)  # newest first
    assert line.count("promoted") == 2
    assert "not above +0.0050" in line
    assert "Live reward" not in text


async def test_pages_show_what_waits_and_why(demo: DemoRegistry) -> None:
    said = "50 needed: 15 usable, 9 held back by examples_per_user (3 users); closes with 35 more"
    assert f"Next batch: {said}" in Structure(await page(demo, "/")).text
    text = await page(demo, "/models/support")
    assert said in text
    assert "curation.trusted_users" in text
    assert "Reported by the dataset service 0 s ago" in text
    assert '<progress max="50" value="15"' in text
    other = WaitingStatus(needed=50, usable=20, smallest_batch=50)
    await demo.say(DATASET_WAITING, waiting_report(other, shard=1))
    text = Structure(await page(demo, "/models/support")).text
    assert "50 needed in one of 2 shards: 35 usable" in text
    assert "shard 1: 50 needed: 20 usable; closes with 30 more" in text


async def test_pages_say_when_nothing_was_reported(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    text = await page(DemoRegistry(registry_db, tmp_path), "/models/support")
    assert "has reported no waiting examples yet" in text


def test_an_age_has_one_unit_and_is_never_negative() -> None:
    now = SystemClock().now()
    seconds = (-5, 59, 60, 7_300, 200_000)
    assert [rendering._age(now - timedelta(seconds=count), now) for count in seconds] == [
        "0 s",
        "59 s",
        "1 minute",
        "2 hours",
        "2 days",
    ]


async def test_live_rewards_are_shown(demo: DemoRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    champion = demo.registry_db.champion
    monkeypatch.setattr(
        models, "rewards_by_version", lambda session, model: {champion: MeanReward(0.4321, 77)}
    )
    text = await page(demo, "/models/support")
    assert "Live reward" in text
    assert "+0.432" in text
    assert "mean live reward</span>" in text
    assert "mean live reward" in text


async def test_version_page_shows_evaluation_and_data(demo: DemoRegistry) -> None:
    text = Structure(await page(demo, f"/models/support/versions/{demo.registry_db.champion}")).text
    assert re.search(r"held-out\s*24\s*-0.600\s*-0.210\s*\+0.390", text)
    assert "+0.270 to +0.530, margin 0.02" in text
    assert "exact match" in text
    assert "learning rate" in text
    assert f"adapters/support/{run_of(1)}/manifest.json" in text
    assert text.count("sha256:") >= 4
    assert re.search(r"near duplicate\s*3", text)
    assert re.search(r"comment\s*It belongs to another queue", text)
    assert "/shop" in text
    assert "Table of the 24 points" in text


async def test_hostile_text_is_escaped(demo: DemoRegistry) -> None:
    raw = await page(demo, f"/models/support/versions/{demo.registry_db.champion}")
    shown = [
        path
        for path in range(3)
        if HOSTILE in Structure(await page(demo, f"/models/support/runs/{run_of(path)}")).text
    ]
    assert shown, "no batch drew the hostile example"
    assert "<img" not in raw
    assert "49" not in re.findall(r"&gt;(\d+)", raw)
    raw = await page(demo, f"/models/support/runs/{run_of(shown[0])}")
    assert "<script>window" not in raw
    assert "<img" not in raw


async def test_withdrawn_examples_are_not_shown(demo: DemoRegistry) -> None:
    path = f"/models/support/runs/{run_of(1)}"
    ids = re.findall(r"/shop\|1-\w+", await page(demo, path))
    assert ids
    withdrawn = WithdrawnExampleRow(
        model="support",
        feedback_id=ids[0],
        batch_id=demo.batches[1].batch_id,
        user="someone",
        offset=1,
    )
    demo.registry_db.run(lambda session: session.add(withdrawn))
    text = await page(demo, path)
    assert ids[0] not in text
    assert "1 of the batch" in text


async def test_unreadable_batch_shows_error_and_rest_of_page(demo: DemoRegistry) -> None:
    path = f"/models/support/versions/{demo.registry_db.champion}"
    demo.store.objects[demo.batches[1].manifest.uri] = b"{}"
    text = await page(demo, path)
    assert "The batch cannot be read" in text
    assert "ratchet dataset verify" in text
    assert "Evaluation" in text
    demo.store.delete(demo.batches[1].manifest.uri)
    assert "is not in the object store" in await page(demo, path)
    assert "is not in the object store" in await page(demo, f"{path}/lineage")


async def test_repeated_batch_ready_stores_one_batch(demo: DemoRegistry) -> None:
    await demo.say(TRAINING_BATCHES, demo.batches[1])
    assert "Batch 1 " in await page(demo, f"/models/support/versions/{demo.registry_db.champion}")


async def test_compare_page_shows_differences_and_answers(
    demo: DemoRegistry,
) -> None:
    aliases = demo.registry_db.aliases
    text = Structure(
        await page(
            demo, f"/models/support/compare?first={aliases.previous}&second={aliases.champion}"
        )
    ).text
    assert re.search(r"configuration · learning rate\s*0.001\s*0.002", text)
    assert "configuration · rank" not in text
    assert "I am sorry to hear that!" in text
    assert '{"queue":"workshop","priority":"p3","order":null}' in text
    assert "both" in text  # both versions give the same answer
    same = await page(
        demo, f"/models/support/compare?first={aliases.champion}&second={aliases.champion}"
    )
    assert "both are the same version" in same


async def test_lineage_from_feedback_to_deployment_down_to_base(demo: DemoRegistry) -> None:
    text = Structure(
        await page(demo, f"/models/support/versions/{demo.registry_db.champion}/lineage")
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


async def test_run_without_version_has_a_page(demo: DemoRegistry) -> None:
    text = await page(demo, f"/models/support/runs/{run_of(2)}")
    assert "look at the batch&#39;s examples" in text
    assert "not above +0.0050" in text
    assert "hx-get" not in text
    live = await page(demo, f"/models/support/runs/{run_of(4)}")
    assert f'hx-get="/models/support/runs/{run_of(4)}/progress"' in live


async def test_run_page_tells_of_a_second_attempt(demo: DemoRegistry) -> None:
    event = rejection("forgetful", demo.registry_db.champion)
    assert event.verdict is not None
    judged = event.verdict.model_copy(
        update={"attempt": 2, "retried_because": "a prompt fails", "quarantined": False}
    )
    await demo.say(TRAINING_ROLLBACKS, event.model_copy(update={"verdict": judged}))
    sentence = "Second attempt: the first candidate only forgot too much."
    text = Structure(await page(demo, "/models/support/runs/forgetful")).text
    assert f"{sentence} The batch is not quarantined." in text
    assert sentence not in await page(demo, f"/models/support/runs/{run_of(2)}")


async def test_ended_run_reloads_its_page(demo: DemoRegistry) -> None:
    async with visitor(demo) as client:
        going = await client.get(f"/models/support/runs/{run_of(4)}/progress")
        ended = await client.get(f"/models/support/runs/{run_of(2)}/progress")
    assert "hx-refresh" not in going.headers
    assert ended.headers["hx-refresh"] == "true"
    assert "hx-get" not in ended.text


async def roll_back(
    demo: DemoRegistry,
    form: dict[str, str],
    headers: dict[str, str] = ORIGIN,
    path: str = "rollback",
) -> httpx.Response:
    async with visitor(demo) as client:
        return await client.post(f"/models/support/{path}", data=form, headers=headers)


async def test_rollback_confirmation_and_result(
    demo: DemoRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WAIT_SECONDS", 0.0)
    before, after = demo.registry_db.champion, demo.registry_db.aliases.previous
    assert after is not None
    confirmation = Structure(await page(demo, "/models/support/rollback")).text
    assert re.search(rf"{before}\s*champion[\s\S]*{after}\s*previous", confirmation)
    assert "0.56" in confirmation
    answer = await roll_back(demo, {"to": after, "champion": before, "reason": " too terse "})
    assert (answer.status_code, answer.headers["location"]) == (303, "/models/support?moved=4")
    assert (demo.registry_db.champion, demo.registry_db.aliases.previous) == (after, before)
    assert "Still deploying" in await page(demo, answer.headers["location"])
    await demo.reconcile()
    assert re.search(
        rf"{after} is serving again, after (less than )?\d+\.\d s",
        Structure(await page(demo, answer.headers["location"])).text,
    )
    assert "too terse" in await page(demo, "/models/support")
    # The URL of an older move does not show its outdated result.
    await roll_back(demo, {"to": before, "champion": after, "reason": "forward again"})
    assert "has changed since" in await page(demo, "/models/support?moved=4")
    assert 'id="move-result"' not in await page(demo, "/models/support?moved=99")


async def test_operator_promotes_challenger_on_page(
    demo: DemoRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "WAIT_SECONDS", 0.0)
    challenger, before = demo.registry_db.aliases.challenger, demo.registry_db.champion
    assert challenger is not None
    confirmation = await page(demo, "/models/support/promote")
    assert "Its verdict was measured against" in confirmation
    answer = await roll_back(
        demo, {"to": challenger, "champion": before, "reason": "read by hand"}, path="promote"
    )
    assert answer.status_code == httpx.codes.SEE_OTHER
    assert demo.registry_db.champion == challenger


async def test_invalid_form_shows_error_and_changes_nothing(demo: DemoRegistry) -> None:
    aliases = demo.registry_db.aliases
    good = {"to": str(aliases.previous), "champion": str(aliases.champion), "reason": "worse"}
    for form, status, expected in (
        (good | {"reason": "  "}, 422, "Enter a reason"),
        (good | {"reason": "x" * 2001}, 422, "Enter a reason"),
        (good | {"champion": str(aliases.previous)}, 409, "is the champion now, no longer"),
        (good | {"to": "v7"}, 404, "support has no version"),
        (good | {"to": str(aliases.champion)}, 409, "is champion now"),
        ({"reason": "worse"}, 400, "has no version"),
    ):
        answer = await roll_back(demo, form)
        assert (answer.status_code, expected in answer.text) == (status, True), answer.text
        assert answer.headers["content-type"].startswith("text/html")
    assert (
        "worse" in (await roll_back(demo, good | {"champion": "v9"})).text
    )  # the form keeps the entered text
    large = await roll_back(demo, good | {"reason": "x" * 20_000})
    assert large.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert demo.registry_db.aliases.champion == aliases.champion


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://elsewhere"},
        {"Origin": "null"},
        {"Origin": "http://registry.elsewhere"},
    ],
)
async def test_cross_site_form_is_refused(demo: DemoRegistry, headers: dict[str, str]) -> None:
    aliases = demo.registry_db.aliases
    form = {"to": str(aliases.previous), "champion": str(aliases.champion), "reason": "worse"}
    answer = await roll_back(demo, form, headers)
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert "own pages" in answer.text
    assert demo.registry_db.aliases.champion == aliases.champion


@pytest.mark.parametrize(
    ("path", "status", "expected"),
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
async def test_error_pages_link_onward(
    demo: DemoRegistry, path: str, status: int, expected: str
) -> None:
    text = await page(demo, path, status)
    assert expected in text
    assert not Structure(text).faults


async def test_verification_without_answers_is_explained(demo: DemoRegistry) -> None:
    """A version without probes was verified by the digest of its file alone."""
    text = Structure(await page(demo, "/models/support")).text
    assert "Its answers to 1 prompt of its evaluation were compared: 1 token agrees" in text

    def without_probes(session: Session) -> None:
        for row in session.scalars(select(DeploymentRow)):
            row.finding = {"probes": 0, "tokens": 0, "mean_difference": None}

    demo.registry_db.run(without_probes)
    text = Structure(await page(demo, "/models/support")).text
    assert "verified by its digest alone" in text
    assert "token" not in text.split("digest alone")[1].split("Roll back")[0]


async def test_hold_shows_how_to_release_it(demo: DemoRegistry) -> None:
    assert 'id="hold"' not in await page(demo, "/models/support")
    demo.registry_db.run(
        lambda session: hold(
            session, "support", "monitor", "<b>twice</b> in a day", demo.past.now()
        )
    )
    text = await page(demo, "/models/support")
    assert "&lt;b&gt;twice&lt;/b&gt; in a day" in text
    assert "ratchet release support" in text


async def test_training_is_paused_and_resumed_on_the_page(demo: DemoRegistry) -> None:
    """The page names the pause and the batches that wait because of it."""
    await demo.announce(7)
    async with visitor(demo) as client:
        confirm = await client.get("/models/support/pause")
        assert "No new training run of support starts" in confirm.text
        refused = await client.post("/models/support/pause", data={"reason": " "}, headers=ORIGIN)
        assert (refused.status_code, "Enter a reason" in refused.text) == (422, True)
        reason = {"reason": "<i>labels</i>"}
        paused = await client.post("/models/support/pause", data=reason, headers=ORIGIN)
        assert paused.headers["location"] == "/models/support"
        shown = (await client.get("/models/support")).text
        for text in ('id="pause"', "&lt;i&gt;labels&lt;/i&gt;", "because training is paused"):
            assert text in shown
        assert "Training paused since" in (await client.get("/")).text
        assert "One batch waits" in (await client.get("/models/support/resume")).text
        await client.post("/models/support/resume", data=reason, headers=ORIGIN)
        shown = (await client.get("/models/support")).text
    assert 'id="pause"' not in shown
    assert "training resumed" in shown, "in the timeline"


async def test_illegal_move_is_an_error_page(demo: DemoRegistry) -> None:
    assert "is champion now" in await page(
        demo, f"/models/support/rollback?to={demo.registry_db.champion}", 409
    )


async def test_programs_get_problem_details(demo: DemoRegistry) -> None:
    async with visitor(demo) as client:
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


async def test_new_model_pages_explain_next_steps(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    demo = DemoRegistry(registry_db, tmp_path)
    assert "A training run starts when a batch of feedback is complete" in await page(demo, "/")
    model = await page(demo, "/models/support")
    assert "ratchet feedback send" in model
    assert "The model file lists deploy targets" in model
    version = await page(demo, f"/models/support/versions/{registry_db.champion}")
    assert "this is the unmodified base model" in version
    assert "trained on no feedback" in await page(
        demo, f"/models/support/versions/{registry_db.champion}/lineage"
    )
    assert "is the only version" in await page(demo, "/models/support/rollback")


async def test_page_without_models_explains_setup(
    registry_db: DatabaseFixture, tmp_path: Path
) -> None:
    demo = DemoRegistry(registry_db, tmp_path)
    registry = Registry(registry_db.database, Models({}, tmp_path), demo.deployer, demo.runtime)
    demo.app = api.build(registry, Health(SystemClock()), demo.metrics.registry, lambda: TOKENS)
    pages.add_pages(demo.app, registry, MemoryStore())
    assert "RATCHET_MODELS" in await page(demo, "/")


async def test_failed_run_shows_reason_and_advice(demo: DemoRegistry) -> None:
    def fail(run: RunRow | None) -> None:
        assert run is not None
        run.state, run.reason, run.advice = (
            "failed",
            "the loss is not finite",
            "lower the learning rate",
        )

    demo.registry_db.run(lambda session: fail(session.get(RunRow, run_of(4))))
    text = await page(demo, f"/models/support/runs/{run_of(4)}")
    assert "the loss is not finite" in text
    assert "lower the learning rate" in text
