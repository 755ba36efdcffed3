"""Identities: equal for equal content, different otherwise, and evenly spread."""

from hypothesis import given
from hypothesis import strategies as st

from shared.identity import digest_of, digest_of_chunks, hash_fraction, identity

parts = st.lists(st.text(), max_size=4)


@given(parts, parts)
def test_two_lists_have_one_identity_only_when_equal(left: list[str], right: list[str]) -> None:
    assert (identity(*left) == identity(*right)) == (left == right)


@given(parts)
def test_a_share_is_in_the_unit_interval(values: list[str]) -> None:
    assert 0 <= hash_fraction(*values) < 1


def test_shares_are_spread_evenly() -> None:
    tenths = [int(hash_fraction("spread", number) * 10) for number in range(10_000)]
    assert all(850 < tenths.count(tenth) < 1150 for tenth in range(10))


@given(st.lists(st.binary()))
def test_a_digest_does_not_depend_on_how_bytes_arrive(chunks: list[bytes]) -> None:
    assert digest_of_chunks(chunks) == digest_of(b"".join(chunks))
