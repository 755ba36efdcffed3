"""`ratchet export` against a running registry: verified files, and nothing overwritten."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from ratchet.cli import commands
from services.registry.gguf.merge import merge
from services.registry.handlers import checkpoint_saved
from services.registry.store.queries import version_of
from services.trainer.machine.bases import locate_base
from services.trainer.training.base_model import (
    load_base,
    save_adapter,
    trainable_adapter,
    with_adapter,
)
from shared.config.training import TrainingConfig
from shared.errors import CommandRefused, DigestMismatch, InvalidArtefact, ObjectNotFound
from shared.events import Artefact
from shared.storage.adapters import WEIGHTS, adapter_files, read_adapter, write_adapter
from shared.storage.object_store import FsspecStore
from tests.registry.deploy.test_deployment import Stage
from tests.support.app_server import serving
from tests.support.credentials import OPERATOR
from tests.support.registry_events import CONTEXT, MODEL, DatabaseFixture, checkpoint
from tests.trainer.tiny import save_tiny

Export = Callable[..., Any]


@pytest.fixture
def stage(registry_db: DatabaseFixture, tmp_path: Path) -> Stage:
    return Stage(registry_db, tmp_path)


@pytest.fixture
def export(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Export]:
    monkeypatch.setenv("RATCHET_TOKEN", OPERATOR["Authorization"].removeprefix("Bearer "))
    models = tmp_path / "models"
    models.mkdir()
    (models / "support.yaml").write_text(
        f"model: support\nbase: {json.dumps(MODEL.base.model_dump())}\n"
    )
    places = ["--models", str(models), "--bases", str(tmp_path / "bases")]
    places += ["--object-store", str(tmp_path / "objects")]
    with serving(stage.app) as address:

        def run(*arguments: object) -> Any:
            return CliRunner().invoke(
                commands.app, ["export", *map(str, arguments), *places, "--registry", address]
            )

        yield run


def trained_adapter(base: Path, folder: Path) -> Path:
    """Write an adapter with random weights on a base."""
    loaded = load_base(str(base), "fp32")
    torch.manual_seed(1)
    with trainable_adapter(loaded.train_model, TrainingConfig(), None) as model:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter.data, std=0.1)
        save_adapter(model, "base", folder)
    return folder


@dataclass(frozen=True)
class Trained:
    """The names of a base version and of one with an adapter."""

    base: str
    version: str
    adapter: Artefact


@pytest.fixture
def trained(stage: Stage, tmp_path: Path) -> Trained:
    """A version with an adapter on a tiny base."""
    base = tmp_path / "bases" / "base"
    save_tiny(base)
    files = adapter_files(trained_adapter(base, tmp_path / "trained"))
    digest = locate_base(tmp_path / "bases", "base").digest
    written = write_adapter(FsspecStore(str(tmp_path / "objects")), "adapters/r", files, digest)
    before = stage.registry_db.champion
    event = checkpoint("r1", before)
    saved = event.model_copy(update={"adapter": written, "base_digest": digest})
    stage.registry_db.run(lambda session: checkpoint_saved(session, saved, CONTEXT))
    return Trained(f"support/{before}", f"support/{stage.registry_db.champion}", written)


def test_an_adapter_is_exported_as_it_is_stored(
    export: Export, trained: Trained, tmp_path: Path
) -> None:
    stored = read_adapter(FsspecStore(str(tmp_path / "objects")), trained.adapter).files
    done = export(trained.version, "--adapter", tmp_path / "out" / "v1")
    assert done.exit_code == 0, done.exception
    assert adapter_files(tmp_path / "out" / "v1") == stored
    again = export(trained.version, "--adapter", tmp_path / "out" / "v1")
    assert isinstance(again.exception, CommandRefused)
    assert "would be overwritten" in str(again.exception)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["v1"]


def test_a_merged_model_answers_as_base_and_adapter(
    export: Export, trained: Trained, tmp_path: Path
) -> None:
    done = export(trained.version, "--merged", tmp_path / "merged")
    assert done.exit_code == 0, done.exception
    ids = torch.tensor([[1, 5, 9, 2, 7]])
    loaded = load_base(str(tmp_path / "bases" / "base"), "fp32")
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with torch.no_grad(), with_adapter(loaded.eval_model, tmp_path / "trained") as model:
        expected, plain = model(ids).logits, merged(ids).logits
    assert torch.allclose(plain, expected, atol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(plain, loaded.eval_model(ids).logits, atol=1e-2)
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


def test_altered_and_missing_files_are_refused(
    export: Export, trained: Trained, tmp_path: Path
) -> None:
    weights = tmp_path / "objects" / "adapters" / "r" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert isinstance(
        export(trained.version, "--adapter", tmp_path / "o").exception, DigestMismatch
    )
    weights.unlink()
    missing = export(trained.version, "--adapter", tmp_path / "o").exception
    assert isinstance(missing, ObjectNotFound)
    assert "--object-store" in str(missing)
    assert not (tmp_path / "o").exists()


def test_another_base_is_not_merged(export: Export, trained: Trained, tmp_path: Path) -> None:
    base = tmp_path / "bases" / "base" / "model.safetensors"
    base.write_bytes(base.read_bytes() + b"x")
    refused = export(trained.version, "--merged", tmp_path / "o").exception
    assert isinstance(refused, CommandRefused)
    assert "put that base back" in str(refused)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new"], "--adapter, --gguf or --merged"),
        (["support", "--adapter", "o"], "expected MODEL/VERSION"),
        (["base", "--adapter", "o"], "is the base itself"),
        (["base", "--gguf", "o"], "set RATCHET_BASES"),
    ],
)
def test_wrong_requests_are_refused_with_advice(
    arguments: list[str], message: str, export: Export, trained: Trained, tmp_path: Path
) -> None:
    names = {"new": trained.version, "base": trained.base, "o": str(tmp_path / "o")}
    refused = export(*[names.get(word, word) for word in arguments])
    assert isinstance(refused.exception, CommandRefused)
    assert message in str(refused.exception)
    assert not (tmp_path / "o").exists()


@pytest.mark.model
def test_gguf_of_the_base_is_the_deployed_file(
    export: Export, bases: Path, tmp_path: Path, stage: Stage
) -> None:
    """It is refused if its digest differs from that of the deployed file."""
    (tmp_path / "bases" / "base").mkdir(parents=True)
    source = bases / "smollm2-135m-instruct" / "model.gguf"
    (tmp_path / "bases" / "base" / "model.gguf").symlink_to(source.resolve())
    name = stage.registry_db.champion
    done = export(f"support/{name}", "--gguf", tmp_path / "v0.gguf")
    assert done.exit_code == 0, done.exception
    expected = merge(source, None, tmp_path / "expected.gguf")
    assert (tmp_path / "v0.gguf").read_bytes() == expected.path.read_bytes()

    def deploy_another(session: Any) -> None:
        version = version_of(session, "support", name)
        assert version is not None
        version.merged_digest = "sha256:" + "1" * 64

    stage.registry_db.run(deploy_another)
    other = export(f"support/{name}", "--gguf", tmp_path / "again.gguf").exception
    assert isinstance(other, InvalidArtefact)
    assert not (tmp_path / "again.gguf").exists()
