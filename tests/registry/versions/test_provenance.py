"""Versions affected by withdrawn examples: by own batch, by replay and by inheritance."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.registry.versions.provenance import (
    VersionOrigin,
    WithdrawnExample,
    withdrawn_by_version,
)
from tests.support.registry_events import NOW


def origin(
    number: int, parent: int | None = None, through: int = -1, batch: int | None = None
) -> VersionOrigin:
    """Return version `number`, whose run started in minute `number` on batch `number`."""
    name = f"v{parent}" if parent is not None else None
    return VersionOrigin(
        f"v{number}",
        name,
        f"b{number if batch is None else batch}",
        NOW + timedelta(minutes=number),
        through,
    )


def withdrawn_example(
    batch: int, *, withdrawn: int = 0, was_run: bool = True, rejected: bool = False
) -> WithdrawnExample:
    return WithdrawnExample(
        f"e{batch}",
        f"b{batch}",
        withdrawn,
        NOW + timedelta(minutes=batch) if was_run else None,
        rejected,
    )


def affected(versions: list[VersionOrigin], *withdrawn: WithdrawnExample) -> list[str]:
    return [name for name, ids in withdrawn_by_version(versions, withdrawn).items() if ids]


LINE = [origin(1, 0), origin(2, 1), origin(3, 2)]


def test_version_of_batch_and_descendants_count() -> None:
    assert affected(LINE, withdrawn_example(2)) == ["v2", "v3"]
    assert affected(LINE) == []


def test_batch_without_version_counts_for_later_versions() -> None:
    assert affected([origin(1, 0), origin(3, 1)], withdrawn_example(2)) == ["v3"]


def test_rejected_batch_counts_only_for_its_own_version() -> None:
    assert affected([origin(1, 0), origin(3, 1)], withdrawn_example(2, rejected=True)) == []
    assert affected([origin(2, 0), origin(3, 0)], withdrawn_example(2, rejected=True)) == ["v2"]


def test_batch_without_run_counts_for_no_version() -> None:
    assert affected(LINE, withdrawn_example(9, was_run=False)) == []


def test_runs_after_withdrawal_are_free_unless_inherited() -> None:
    assert (
        affected(
            [origin(2, 0, through=5), origin(3, 2, through=5)], withdrawn_example(2, withdrawn=5)
        )
        == []
    )
    assert affected([origin(2, 0, through=5)], withdrawn_example(2, withdrawn=6)) == ["v2"]
    assert affected([origin(1, 0), origin(2, 1, through=5)], withdrawn_example(1, withdrawn=5)) == [
        "v1",
        "v2",
    ]


def test_version_from_base_inherits_nothing() -> None:
    assert affected(
        [origin(1, 0), origin(2, None, through=5)], withdrawn_example(1, withdrawn=5)
    ) == ["v1"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 5)), max_size=8),
    st.lists(
        st.builds(
            withdrawn_example,
            st.integers(1, 9),
            withdrawn=st.integers(0, 5),
            rejected=st.booleans(),
        ),
        max_size=8,
    ),
    st.builds(
        withdrawn_example, st.integers(1, 9), withdrawn=st.integers(0, 5), rejected=st.booleans()
    ),
)
def test_affected_versions_grow_and_are_inherited(
    drawn: list[tuple[int, int]], withdrawn: list[WithdrawnExample], another: WithdrawnExample
) -> None:
    versions = [
        origin(number, max(0, number - back - 1), through)
        for number, (back, through) in enumerate(drawn, start=1)
    ]
    before, after = (
        withdrawn_by_version(versions, withdrawn),
        withdrawn_by_version(versions, [*withdrawn, another]),
    )
    for version in versions:
        assert before[version.version] <= after[version.version]
        assert version.parent is not None
        assert after.get(version.parent, frozenset()) <= after[version.version]
