"""One suite for the object stores on disk and in memory."""

from pathlib import Path

import pytest

from shared.errors import DigestMismatch, InvalidArtefact, ObjectNotFound, StorageUnavailable
from shared.events import Artefact
from shared.identity import digest_of
from shared.storage.adapters import read_adapter
from shared.storage.object_store import (
    FsspecStore,
    MemoryStore,
    ObjectStore,
    canonical_json,
    get_verified,
)


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else FsspecStore(str(tmp_path / "objects"))


def test_a_stored_object_has_its_digest(store: ObjectStore) -> None:
    artefact = store.put("a/b/c.json", b"content")
    assert store.exists("a/b/c.json")
    assert get_verified(store, artefact) == b"content"
    assert store.put("a/b/c.json", b"content") == artefact


def test_an_altered_object_is_refused(store: ObjectStore) -> None:
    artefact = store.put("a", b"content")
    store.put("a", b"contents")
    with pytest.raises(DigestMismatch, match="altered or cut off"):
        get_verified(store, artefact)


def test_a_missing_object_is_reported(store: ObjectStore) -> None:
    assert not store.exists("nowhere")
    with pytest.raises(ObjectNotFound, match="nowhere"):
        get_verified(store, Artefact(uri="nowhere", digest="sha256:" + "0" * 64))


def test_deleting_an_object_is_idempotent(store: ObjectStore) -> None:
    artefact = store.put("a/kept", b"content")
    store.put("a/b", b"content")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert get_verified(store, artefact) == b"content"


def test_list_keys_returns_the_objects_below_a_folder(store: ObjectStore) -> None:
    for key in ("a/b", "a/c/d", "ab/c", "b"):
        store.put(key, b"x")
    assert store.list_keys("a") == ["a/b", "a/c/d"]
    assert store.list_keys("nowhere") == []


def test_a_failed_write_leaves_no_object(tmp_path: Path) -> None:
    (tmp_path / "objects").write_text("a file stands where the folder should be")
    with pytest.raises(StorageUnavailable, match="could not write"):
        FsspecStore(str(tmp_path / "objects")).put("a", b"x")


def test_a_put_leaves_no_temporary_file(tmp_path: Path) -> None:
    FsspecStore(str(tmp_path)).put("a/b", b"x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.parametrize(
    "key",
    ["/etc/passwd", "../up", "a/../../up", "a//b", "a/.", "", "a\0b", "n" * 256, "n/" * 512 + "n"],
)
def test_a_key_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    with pytest.raises(InvalidArtefact, match="is no key of the object store"):
        store.put(key, b"x")
    with pytest.raises(InvalidArtefact, match="is no key of the object store"):
        get_verified(store, Artefact(uri=key, digest=digest_of(b"x")))


@pytest.mark.parametrize("name", ["../a", "a/b", "..", "", "a\0"])
def test_an_adapter_with_files_elsewhere_is_invalid(name: str) -> None:
    store, digest = MemoryStore(), digest_of(b"x")
    manifest = {"files": {name: digest}, "base_digest": digest}
    artefact = store.put("adapters/m/r/manifest.json", canonical_json(manifest))
    with pytest.raises(InvalidArtefact, match="is not an adapter's manifest"):
        read_adapter(store, artefact)


def test_equal_values_have_equal_bytes() -> None:
    assert (
        canonical_json({"b": 1, "a": "ü"})
        == canonical_json({"a": "ü", "b": 1})
        == '{"a":"ü","b":1}'.encode()
    )
