"""Alias moves by the table, and verdicts that are valid against their baseline only."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.lifecycle import (
    ALLOWED_MOVES,
    Aliases,
    AliasMove,
    IllegalMove,
    apply_move,
    registration_result,
    version_name,
)

VERSIONS = ("v0", "v1", "v2", "v3")
maybe = st.sampled_from([None, *VERSIONS])
moves = st.sampled_from(sorted(ALLOWED_MOVES))


def test_names_carry_number_and_time() -> None:
    assert version_name(3, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "v3_20260102_030405"


@given(
    champion=st.sampled_from(VERSIONS),
    previous=maybe,
    challenger=maybe,
    kind=moves,
    version=st.sampled_from(VERSIONS),
)
def test_only_legal_moves_happen(
    champion: str, previous: str | None, challenger: str | None, kind: AliasMove, version: str
) -> None:
    before = Aliases(champion, previous, challenger)
    if before.status_of(version) not in ALLOWED_MOVES[kind]:
        with pytest.raises(IllegalMove, match=version):
            apply_move(before, kind, version)
        return
    after = apply_move(before, kind, version)
    if kind in ("promote", "roll_back"):
        assert (after.champion, after.previous) == (version, champion)
        assert after.challenger != version
    else:
        assert (after.champion, after.previous) == (champion, previous)


@given(steps=st.lists(st.tuples(moves, st.sampled_from(VERSIONS)), max_size=30))
def test_champion_is_set_and_differs_from_other_aliases(
    steps: list[tuple[AliasMove, str]],
) -> None:
    aliases = apply_move(Aliases(), "found", "v0", is_new=True)
    for kind, version in steps:
        try:
            aliases = apply_move(aliases, kind, version)
        except IllegalMove:
            continue
        assert aliases.champion is not None
        assert aliases.champion not in (aliases.previous, aliases.challenger)


def test_second_version_zero_is_refused() -> None:
    with pytest.raises(IllegalMove):
        apply_move(Aliases(champion="v0"), "found", "v1", is_new=True)


@given(champion=st.sampled_from(VERSIONS), baseline=st.sampled_from(VERSIONS))
def test_verdict_is_valid_against_its_baseline_only(champion: str, baseline: str) -> None:
    assert registration_result(Aliases(champion=champion), baseline, on_hold=False) == (
        "promoted" if champion == baseline else "reevaluate"
    )


@given(champion=st.sampled_from(VERSIONS), baseline=st.sampled_from(VERSIONS))
def test_candidates_wait_while_on_hold(champion: str, baseline: str) -> None:
    assert registration_result(Aliases(champion=champion), baseline, on_hold=True) == "held"
