"""The hash chain of the audit log: the formula, and what a verification finds."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.audit_chain import (
    FIELDS,
    FIRST_PREVIOUS_HASH,
    BrokenChain,
    ChainVerifier,
    as_stored,
    entry_hash,
)

AT = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
Entry = dict[str, Any]


def chain(length: int) -> list[Entry]:
    entries: list[Entry] = []
    previous = FIRST_PREVIOUS_HASH
    for number in range(1, length + 1):
        entry: Entry = {
            "number": number,
            "at": f"2026-07-01T12:00:{number:02}Z",
            "model": "support",
            "actor": "operator",
            "operator": "ada",
            "action": "promote",
            "from": "v0",
            "to": f"v{number}",
            "reason": "über alles bessere Antworten",
            "evidence": {"lower": 0.25},
            "previous_hash": previous,
        }
        previous = entry["hash"] = entry_hash(entry)
        entries.append(entry)
    return entries


def verify(entries: list[Entry]) -> ChainVerifier:
    verifier = ChainVerifier()
    for entry in entries:
        verifier.add(entry)
    return verifier


def test_hash_is_that_of_the_documented_text() -> None:
    (entry,) = chain(1)
    text = (
        '{"action":"promote","actor":"operator","at":"2026-07-01T12:00:01.000000+00:00",'
        '"evidence":{"lower":0.25},"from":"v0","model":"support","number":1,"operator":"ada",'
        f'"previous_hash":"{"0" * 64}","reason":"\\u00fcber alles bessere Antworten","to":"v1"}}'
    )
    assert entry["hash"] == sha256(text.encode()).hexdigest()


def test_time_zone_and_form_do_not_change_the_hash() -> None:
    (entry,) = chain(1)
    at = datetime(2026, 7, 1, 14, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    forms = [at, at.isoformat(), "2026-07-01T12:00:01+00:00", "2026-07-01T12:00:01.000Z"]
    assert {entry_hash(entry | {"at": form}) for form in forms} == {entry["hash"]}


def test_unbroken_chain_is_verified_to_its_head() -> None:
    entries = chain(5)
    verifier = verify(entries)
    assert (verifier.number, verifier.head) == (5, entries[-1]["hash"])


@pytest.mark.parametrize("name", [*FIELDS, "hash"])
def test_every_changed_field_is_found(name: str) -> None:
    entries = chain(4)
    values: Entry = {"number": 7, "at": "2026-07-02T12:00:00Z", "evidence": {"lower": 0.5}}
    entries[1][name] = values.get(name, "other")
    with pytest.raises(BrokenChain, match="entry 2"):
        verify(entries)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda entries: entries.pop(1), "entry 2 is missing"),
        (lambda entries: entries.insert(1, dict(entries[1])), "entry 3 is missing"),
        (lambda entries: entries.reverse(), "entry 1 is missing"),
        (lambda entries: entries[1].pop("reason"), "entry 2 cannot be read"),
        (lambda entries: entries[1].update(at="yesterday"), "entry 2 cannot be read"),
        (lambda entries: entries[1].update(at=7), "entry 2 cannot be read"),
        (lambda entries: entries[1].update(evidence={"x": float("nan")}), "entry 2 cannot be read"),
    ],
)
def test_first_broken_entry_is_named(change: Callable[[list[Entry]], None], found: str) -> None:
    entries = chain(4)
    change(entries)
    with pytest.raises(BrokenChain, match=found):
        verify(entries)


def test_rewritten_entry_breaks_the_next_one() -> None:
    """Someone who changes an entry and its hash has to rewrite every later entry."""
    entries = chain(4)
    entries[1]["reason"] = "other"
    entries[1]["hash"] = entry_hash(entries[1])
    with pytest.raises(BrokenChain, match="entry 3 does not follow entry 2"):
        verify(entries)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON, max_size=3))
def test_evidence_is_the_same_after_a_round_trip(evidence: Entry) -> None:
    (entry,) = chain(1)
    stored = as_stored(evidence)
    again = json.loads(json.dumps(stored, allow_nan=False))
    assert entry_hash(entry | {"evidence": again}) == entry_hash(entry | {"evidence": stored})
    assert as_stored(stored) == stored
