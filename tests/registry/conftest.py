"""The merged model and its reference, made once."""

from pathlib import Path

import pytest

from ratchet.bases import SMOLLM2
from services.registry.merge import Merged, merge
from tests.registry.reference import Reference, make_reference


@pytest.fixture(scope="session")
def reference(bases: Path) -> Reference:
    return make_reference(bases / SMOLLM2)


@pytest.fixture(scope="session")
def merged(bases: Path, reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> Merged:
    return merge(bases / SMOLLM2 / "model.gguf", reference.adapter, tmp_path_factory.mktemp("merged") / "model.gguf")
