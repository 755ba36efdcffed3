"""The origin of imported datasets in their manifests."""

from shared.identity import digest_of
from shared.storage.snapshots import ImportSource


def test_the_source_of_a_file_is_written_as_before() -> None:
    """The ID of a dataset depends on it: the same file has to stay the same dataset."""
    source = ImportSource(digest=digest_of(b"a"), lines=5, errors=1)
    assert set(source.model_dump(mode="json")) == {"digest", "lines", "errors"}
    of_documents = source.model_copy(update={"documents": 2})
    assert of_documents.model_dump(mode="json")["documents"] == 2
    for each in (source, of_documents):
        assert ImportSource.model_validate_json(each.model_dump_json()) == each
