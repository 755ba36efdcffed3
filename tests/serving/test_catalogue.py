"""Tags are immutable, aliases move; aliased and busy tags stay loaded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.serving.catalogue import (
    Catalogue,
    CatalogueConflict,
    ModelNotFound,
    TaggedFile,
    tags_to_unload,
)
from shared.identity import digest_of

ONE, TWO = (
    TaggedFile(path="/a", digest=digest_of(b"1")),
    TaggedFile(path="/b", digest=digest_of(b"2")),
)
tags = st.lists(st.sampled_from("abcdef"), unique=True)


def test_a_tag_never_changes_its_content() -> None:
    catalogue = Catalogue().with_tag("m:v1", ONE)
    assert (
        catalogue.with_tag("m:v1", ONE.model_copy(update={"path": "/moved"})).tags["m:v1"].path
        == "/moved"
    )
    with pytest.raises(CatalogueConflict, match="never change"):
        catalogue.with_tag("m:v1", TWO)


def test_an_alias_moves_between_existing_tags() -> None:
    catalogue = Catalogue().with_tag("m:v1", ONE).with_tag("m:v2", TWO).with_alias("m", "m:v1")
    assert catalogue.resolve("m") == "m:v1"
    assert catalogue.with_alias("m", "m:v2").resolve("m") == "m:v2"
    assert catalogue.resolve("m:v2") == "m:v2"
    with pytest.raises(ModelNotFound):
        catalogue.with_alias("m", "m:v3")
    with pytest.raises(ModelNotFound, match="available"):
        catalogue.resolve("other")


def test_a_name_is_a_tag_or_an_alias() -> None:
    catalogue = Catalogue().with_tag("m:v1", ONE).with_alias("m", "m:v1")
    with pytest.raises(CatalogueConflict):
        catalogue.with_alias("m:v1", "m:v1")
    with pytest.raises(CatalogueConflict):
        catalogue.with_tag("m", TWO)


def test_an_aliased_tag_cannot_be_removed() -> None:
    catalogue = Catalogue().with_tag("m:v1", ONE).with_tag("m:v2", TWO).with_alias("m", "m:v1")
    with pytest.raises(CatalogueConflict, match="move the alias"):
        catalogue.without_tag("m:v1")
    assert set(catalogue.without_tag("m:v2").tags) == {"m:v1"}


def test_removing_an_alias_keeps_its_tag() -> None:
    catalogue = (
        Catalogue()
        .with_tag("m:v1", ONE)
        .with_alias("m", "m:v1")
        .with_alias("m:challenger", "m:v1")
        .without_alias("m:challenger")
    )
    assert (dict(catalogue.aliases), set(catalogue.tags)) == ({"m": "m:v1"}, {"m:v1"})
    with pytest.raises(ModelNotFound, match="m:challenger"):
        catalogue.without_alias("m:challenger")


@given(loaded=tags, busy=tags, aliased=tags, limit=st.integers(0, 6))
def test_unload_is_lru_and_spares_aliased_and_busy_tags(
    loaded: list[str], busy: list[str], aliased: list[str], limit: int
) -> None:
    unloaded = tags_to_unload(loaded, busy, aliased, limit)
    remaining = [tag for tag in loaded if tag not in unloaded]
    free = [tag for tag in loaded if tag not in busy and tag not in aliased]
    assert unloaded == free[: len(unloaded)]
    assert len(remaining) <= limit or not [tag for tag in remaining if tag in free]
    assert not unloaded or len(remaining) >= limit
