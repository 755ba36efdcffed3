"""Identities: equal for equal content, different otherwise, and evenly spread."""

from hypothesis import given
from hypothesis import strategies as st

from shared.identity import digest_of, digest_of_chunks, hash_fraction, identity

parts = st.lists(st.text(), max_size=4)


@given(parts, parts)
def test_different_parts_have_different_identities(left: list[str], right: list[str]) -> None:
    assert (identity(*left) == identity(*right)) == (left == right)


@given(parts)
def test_a_hash_fraction_is_in_the_unit_interval(values: list[str]) -> None:
    assert 0 <= hash_fraction(*values) < 1


def test_hash_fractions_are_uniform() -> None:
    tenths = [int(hash_fraction("spread", number) * 10) for number in range(10_000)]
    assert all(850 < tenths.count(tenth) < 1150 for tenth in range(10))


@given(st.lists(st.binary()))
def test_a_digest_does_not_depend_on_chunking(chunks: list[bytes]) -> None:
    assert digest_of_chunks(chunks) == digest_of(b"".join(chunks))
