"""The committed contract files match the code and are compatible with all earlier schemas."""

import re
import shutil
from pathlib import Path

import pytest

from ratchet.contracts.compatibility import incompatibilities, same_constraints
from ratchet.contracts.schemas import event_schemas
from ratchet.contracts.writing import (
    EXTERNAL_EVENTS,
    IncompatibleSchema,
    contract_files,
    write_contracts,
)
from shared.events import EVENTS
from shared.messaging.topics import TOPICS
from tests.contracts.committed import DOCS, EXAMPLES, json_of

SCHEMAS = event_schemas()
EARLIER = sorted((DOCS / "schemas" / "earlier").glob("*.json"))


def test_the_committed_files_are_up_to_date() -> None:
    expected_files = contract_files(EXAMPLES)
    assert {
        name: (DOCS / name).read_text(encoding="utf-8") for name in expected_files
    } == expected_files, "run: make contracts"
    assert sorted(path.stem for path in (DOCS / "schemas").glob("*.json")) == sorted(
        event.type_name() for event in EVENTS
    )


def test_every_event_and_topic_is_on_the_page() -> None:
    page = (DOCS / "events.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    assert headings[: len(EVENTS)] == [event.__name__ for event in EVENTS]
    assert len(headings) == len(set(headings))
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= {heading.lower() for heading in headings}
    assert {topic.name for topic in TOPICS if not topic.name.endswith(".dlq")} <= set(
        re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE)
    )


def test_every_field_of_every_event_is_described() -> None:
    parts = [
        schema
        for whole in SCHEMAS.values()
        for schema in (whole, *whole.get("$defs", {}).values())
        if "properties" in schema
    ]
    assert len(parts) > len(EVENTS)
    assert [
        (part["title"], name)
        for part in parts
        for name, field in part["properties"].items()
        if not field.get("description")
    ] == []


def test_the_earlier_schemas_are_complete() -> None:
    """`CheckpointSaved` and `TrainingRolledBack` have one for each older golden example."""
    counted = {
        name: len([path for path in EARLIER if path.stem.startswith(f"{name}.older-")])
        for name in SCHEMAS
    }
    assert sum(counted.values()) == len(EARLIER) >= 15
    assert (counted["ratchet.CheckpointSaved.v1"], counted["ratchet.TrainingRolledBack.v1"]) >= (
        7,
        6,
    )
    expected = {
        f"{name}.older-{number}"
        for name, count in counted.items()
        for number in range(1, count + 1)
    }
    assert {path.stem for path in EARLIER} == expected


@pytest.mark.parametrize("path", EARLIER, ids=lambda path: path.stem)
def test_a_schema_is_compatible_with_earlier_ones(path: Path) -> None:
    name = path.stem.partition(".older-")[0]
    assert incompatibilities(json_of(path), SCHEMAS[name], external=name in EXTERNAL_EVENTS) == []
    assert not same_constraints(json_of(path), SCHEMAS[name])


def test_a_changed_schema_is_archived_and_a_break_is_refused(
    tmp_path: Path,
) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(DOCS / "schemas", docs / "schemas", ignore=shutil.ignore_patterns("earlier"))
    current = docs / "schemas" / "ratchet.WaitEnded.v1.json"
    text = current.read_text(encoding="utf-8")

    current.write_text(text.replace("name of the model", "its title"), encoding="utf-8")
    assert current in write_contracts(docs, EXAMPLES), "a changed description is written"
    assert not (docs / "schemas" / "earlier").exists(), "a description does not change the schema"

    current.write_text(text.replace('"maxLength": 256', '"maxLength": 255'), encoding="utf-8")
    for number in (1, 2):
        tighter = current.read_text(encoding="utf-8").replace(
            '"maxLength": 256', f'"maxLength": {250 + number}'
        )
        current.write_text(tighter, encoding="utf-8")
        assert current in write_contracts(docs, EXAMPLES)
        archived = docs / "schemas" / "earlier" / f"ratchet.WaitEnded.v1.older-{number}.json"
        assert json_of(archived)["properties"]["event_id"]["maxLength"] in (255, 252)
    assert write_contracts(docs, EXAMPLES) == []

    current.write_text(text.replace('"maxLength": 256', '"maxLength": 257'), encoding="utf-8")
    with pytest.raises(
        IncompatibleSchema, match=r"ratchet\.WaitEnded\.v1: event_id: maxLength was lowered to 256"
    ):
        write_contracts(docs, EXAMPLES)
    assert '"maxLength": 257' in current.read_text(encoding="utf-8")
