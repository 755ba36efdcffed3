"""The handbook of the examples: its documents, and the dataset that its recipe makes of them."""

from pathlib import Path

import pytest

from examples.handbook.write_documents import BINARY_DOCUMENTS, document_of
from services.dataset.building.dataset_building import BuildRequest, build_dataset
from services.dataset.building.recipe import read_recipe
from services.dataset.sources.reading import read_document
from shared.config.models import load_models
from shared.storage.object_store import FsspecStore
from shared.storage.snapshots import read_examples, read_manifest
from tests.support.imported_files import curation

HANDBOOK = Path("examples/handbook")


def test_every_type_of_document_has_examples(tmp_path: Path) -> None:
    """The golden set asks for facts of the documents, in wordings that no training example has."""
    models = load_models(HANDBOOK / "models")
    file, recipe = models.get("handbook"), read_recipe(HANDBOOK / "recipe.yaml")
    golden = models.golden("handbook")
    prompts = [example.messages for example in golden]
    store = FsspecStore(str(tmp_path))
    report = build_dataset(
        BuildRequest(HANDBOOK / "documents", recipe),
        file,
        curation(file, prompts),
        store,
        read_document,
        lambda _: None,
    )
    assert report.manifest is not None
    assert (report.dropped, report.files_left_out) == ({}, {})
    manifest = read_manifest(store, report.manifest)
    training = read_examples(store, manifest, "training")
    suffixes = {str(example.source).partition(",")[0].rpartition(".")[2] for example in training}
    assert suffixes == {"md", "html", "docx", "pdf", "vtt"}
    held_out = read_examples(store, manifest, "held_out")
    answers = {example.answer for example in [*training, *held_out]}
    assert all(example.answer in answers for example in golden)
    assert not set(prompts) & {example.messages for example in training}


@pytest.mark.parametrize("name", BINARY_DOCUMENTS)
def test_binary_documents_are_made_from_their_sources(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(document_of(name))
    assert read_document(path) == read_document(HANDBOOK / "documents" / name)
