"""The topics that a trainer reads without a consumer group: what is no event is skipped, an event
with a wrong field stops the trainer with its position.
"""

from pathlib import Path

import pytest

from services.trainer.bus_view.view import VIEW_EVENTS, VIEW_TOPICS, BusView
from shared.errors import Misconfigured
from shared.events import BatchReady, Event
from shared.messaging.bus import MemoryBus
from shared.messaging.topics import TOPICS
from tests.dead_letters.test_every_consumer import records_of
from tests.dead_letters.test_malformed_input import golden_event
from tests.support.runtime import runtime_of
from tests.support.wrong_records import odd_records, wrong_records
from tests.trainer.test_app import FakeTopicReader

SKIPPED = {
    "no value",
    "empty value",
    "not JSON",
    "not UTF-8",
    "random bytes",
    "cut off",
    "an array",
    "a number",
    "nested too deep",
    "nested too deep in a field",
    "too many digits",
    "unknown type",
    "another version",
    "an event of another topic",
    "a batch of events",
}


@pytest.mark.parametrize("event", VIEW_EVENTS, ids=lambda event: event.__name__)
async def test_wrong_record_is_skipped_or_named(event: type[Event], tmp_path: Path) -> None:
    (topic,) = (row.name for row in TOPICS if event in row.events and row.name in VIEW_TOPICS)
    fields = golden_event(event)
    wrong = wrong_records(event, fields, BatchReady)
    skipped, stopped = set[str](), dict[str, str]()
    for kind, record in zip(
        wires := wrong | odd_records(event, fields), records_of(topic, wires), strict=True
    ):
        bus = MemoryBus({topic: [record]})
        view = BusView(FakeTopicReader(bus), runtime_of("trainer"))
        try:
            await view.refresh()
            skipped.add(kind)
        except Misconfigured as error:
            stopped[f"{topic}-0@{record.offset}"] = str(error)
    assert all(reason.startswith(f"{place}: ") for place, reason in stopped.items())
    assert skipped >= SKIPPED
    # Used only when its object is read, which is refused then.
    outside = {kind for kind in wrong if "uri" in kind}
    assert skipped & wrong.keys() <= SKIPPED | outside | {"undeclared model"}
