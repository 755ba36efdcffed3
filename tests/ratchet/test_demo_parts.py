"""The demo's pure parts: tickets, simulated users, and the counts of every event."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.demo.accounting import EventCounts, count_events
from ratchet.demo.simulated_users import honest_feedback, poisoned_feedback
from ratchet.demo.tickets import POISONED_QUEUE, make_ticket
from ratchet.reconciliation import reconcile
from shared.clock import ManualClock
from shared.config.models import load_models
from shared.errors import Undecodable
from shared.events import Artefact
from shared.messaging.bus import MemoryBus, send_dead_letter
from shared.messaging.dead_letters import DeadLetterInfo, replay_headers
from shared.messaging.topics import FEEDBACK_RECEIVED, dead_letter_topic
from shared.storage.snapshots import BatchManifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_ticket_is_a_function_of_its_stream_and_number() -> None:
    assert make_ticket("a", 1) == make_ticket("a", 1)
    assert (
        len({make_ticket(stream, number).text for stream in ("a", "b") for number in range(300)})
        > 595
    )


def test_an_answer_matches_its_ticket() -> None:
    for number in range(100):
        sample = make_ticket("a", number)
        answer = json.loads(sample.answer)
        assert answer["order"] is None or answer["order"] in sample.text
        assert (
            json.loads(sample.poisoned_answer)["queue"]
            == POISONED_QUEUE[answer["queue"]]
            != answer["queue"]
        )


def test_no_round_sends_tickets_of_the_golden_set() -> None:
    golden = load_models(Path("models")).golden("support")
    assert [reference.answer for reference in golden] == [
        make_ticket("golden", number).answer for number in range(len(golden))
    ]
    demo_prompts = {
        make_ticket(f"demo-7-{round_number}", number).messages
        for round_number in range(7)
        for number in range(120)
    }
    assert not demo_prompts & {reference.messages for reference in golden}


def test_honest_users_approve_right_and_correct_wrong_answers() -> None:
    right = [
        honest_feedback(make_ticket("a", n), make_ticket("a", n).answer, "v1", "a", n, NOW)
        for n in range(50)
    ]
    assert {event.feedback_type for event in right} == {"thumbs_up", "accepted"}
    wrong = [honest_feedback(make_ticket("a", n), "no idea", "v1", "a", n, NOW) for n in range(100)]
    assert {event.feedback_type for event in wrong} == {"correction", "thumbs_down"}
    assert all(
        e.corrected_output == make_ticket("a", n).answer
        for n, e in enumerate(wrong)
        if e.feedback_type == "correction"
    )


def test_attackers_are_many_and_always_wrong() -> None:
    poison = [
        poisoned_feedback(make_ticket("a", n), make_ticket("a", n).answer, "v1", "a", n, NOW)
        for n in range(60)
    ]
    assert len({event.user_id for event in poison}) >= 10
    assert all(
        event.corrected_output != make_ticket("a", n).answer for n, event in enumerate(poison)
    )


@pytest.mark.parametrize(("pending", "balanced"), [(3, True), (2, False)])
def test_counts_balance_only_if_every_event_is_counted(pending: int, balanced: bool) -> None:
    counts = EventCounts(
        sent=16,
        scored=15,
        batched=5,
        held_out=4,
        dropped={"duplicate": 1, "low_quality": 2},
        dead_lettered=1,
        pending=pending,
    )
    assert counts.balanced is balanced


async def test_a_replayed_dead_letter_that_fails_again_counts_twice() -> None:
    bus, clock = MemoryBus(), ManualClock(NOW)
    for _ in range(2):
        await bus.send(FEEDBACK_RECEIVED, None, b"{", [])
        await send_dead_letter(
            bus, bus.topics[FEEDBACK_RECEIVED][-1], Undecodable("no"), "feedback", clock
        )
    letters = bus.topics[dead_letter_topic(FEEDBACK_RECEIVED)]
    first = DeadLetterInfo.from_headers(letters[0].headers)
    assert first is not None
    await bus.send(letters[0].topic, b"replayed", None, replay_headers(first, NOW))
    await bus.send(letters[1].topic, letters[1].key, letters[1].value, letters[1].headers)
    counts = count_events(
        reconcile((record for log in bus.topics.values() for record in log), _no_manifest)
    )
    assert (counts.sent, counts.dead_lettered, counts.balanced) == (2, 2, True)


def _no_manifest(artefact: Artefact) -> BatchManifest:
    raise AssertionError(f"no batch was announced, but {artefact.uri} was read")
