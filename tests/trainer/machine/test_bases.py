"""Location of a base: a local folder, or the hub's cache without network access."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from services.trainer.machine.bases import base_folder, locate_base
from shared.errors import SettingsError
from shared.identity import digest_of

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty, on a machine without network access."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def write_to_cache(cache: Path, weights: bytes) -> Path:
    """Write a model to the cache, as the hub's client does."""
    model = cache / "models--house--small"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(REVISION)
    snapshot = model / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(weights)
    return snapshot


@pytest.mark.parametrize("name", ["house/small", "house/small@main", f"house/small@{REVISION}"])
def test_hub_id_is_loaded_from_the_cache_without_network(
    cache: Path, tmp_path: Path, name: str
) -> None:
    snapshot = write_to_cache(cache, b"weights")
    base = locate_base(tmp_path, name)
    assert (base.folder, base.name, base.digest) == (snapshot, name, digest_of(b"weights"))


def test_local_folder_takes_precedence_over_the_hub(cache: Path, tmp_path: Path) -> None:
    write_to_cache(cache, b"of the hub")
    (tmp_path / "house" / "small").mkdir(parents=True)
    assert base_folder(tmp_path, "house/small") == tmp_path / "house" / "small"


def test_missing_base_names_the_searched_places(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="hub cannot be reached"):
        base_folder(tmp_path, "house/other")
    with pytest.raises(SettingsError, match="RATCHET_BASES"):
        base_folder(tmp_path, "nothing")


def test_folder_without_weights_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingsError, match="contains no base"):
        locate_base(tmp_path, "empty")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\ntags: [a]\n---\n# Base\n", "mit"),
        ("---\ntags: [a]\n---\n", None),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\n- a\n---\n", None),
        ("---\n: : :\n---\n", None),
        ("# Base\n", None),
        (None, None),
    ],
)
def test_base_licence_is_read_from_its_card(
    tmp_path: Path, card: str | None, licence: str | None
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"weights")
    if card is not None:
        (tmp_path / "base" / "README.md").write_text(card)
    assert locate_base(tmp_path, "base").licence == licence
