"""`ratchet new`: the files that it writes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ratchet.cli.commands import app
from shared.config.models import load_models
from shared.errors import Misconfigured


@pytest.fixture
def small_bases(tmp_path: Path) -> Path:
    folder = tmp_path / "bases" / "small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 24}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "small-q8.gguf").write_bytes(b"")
    return tmp_path / "bases"


def new(small_bases: Path, *arguments: str) -> Result:
    folders = ("--bases", str(small_bases), "--models", str(small_bases.parent / "models"))
    return CliRunner().invoke(app, ["new", *arguments, *folders])


def refusal(result: Result) -> str:
    assert isinstance(result.exception, Misconfigured), result.output
    return str(result.exception)


def files_in(folder: Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("model", ["dates", "my-model.v2", "1e3", "null", "on", "2026-01-01"])
def test_a_new_model_is_complete_and_valid(small_bases: Path, model: str) -> None:
    result = new(small_bases, model, "--base", "small", "--trusted-user", "ada")
    assert result.exit_code == 0, result.output
    models = load_models(small_bases.parent / "models")
    file = models.get(model)
    assert (file.base.training, file.base.serving) == ("small", "small/small-q8.gguf")
    assert file.curation.trusted_users == ("ada",)
    assert not file.lanes["adaptive"].training.named, "the base and the machine decide"
    assert len(models.golden(model)) >= file.gate.minimum_examples
    assert len(models.regression_set(model)) >= 12
    assert len(models.regression_prompts(model)) >= 3
    assert len(models.rehearsal(model, "adaptive")) >= 10
    check = CliRunner().invoke(
        app, ["models", "check", "--models", str(small_bases.parent / "models")]
    )
    assert check.exit_code == 0
    assert "warning" not in check.output


def test_existing_files_are_never_changed(small_bases: Path) -> None:
    set_of_the_user = small_bases.parent / "models" / "dates" / "golden.jsonl"
    set_of_the_user.parent.mkdir(parents=True)
    set_of_the_user.write_text("mine")
    assert "golden.jsonl exists" in refusal(new(small_bases, "dates", "--base", "small"))
    assert files_in(small_bases.parent / "models") == {str(set_of_the_user): "mine"}


def _without(name: str) -> Any:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        (None, ("Dates", "--base", "small"), "'Dates' is no name of a model"),
        (None, ("m", "--base", "large"), "is no folder; name a folder below"),
        (None, ("m", "--base", "owner/name"), "with --serving FILE.gguf"),
        (None, ("m", "--base", "owner/name", "--serving", "a.gguf"), "a.gguf is no file"),
        (None, ("m", "--base", "small", "--trusted-user", ""), "curation.trusted_users.0"),
        (_without("config.json"), ("m", "--base", "small"), "it has no config.json"),
        (_without("model.safetensors"), ("m", "--base", "small"), "it has no weights"),
        (_without("tokenizer.json"), ("m", "--base", "small"), "it has no tokenizer"),
        (_without("small-q8.gguf"), ("m", "--base", "small"), "has no GGUF files"),
        (
            lambda folder: (folder / "other.gguf").write_bytes(b""),
            ("m", "--base", "small"),
            "has 2 GGUF files",
        ),
        (
            lambda folder: (folder / "config.json").write_text("{"),
            ("m", "--base", "small"),
            "config.json is not JSON",
        ),
    ],
)
def test_what_cannot_work_is_refused(
    small_bases: Path, change: Any, arguments: tuple[str, ...], expected: str
) -> None:
    if change is not None:
        change(small_bases / "small")
    assert expected in refusal(new(small_bases, *arguments))
    assert files_in(small_bases.parent / "models") == {}


@pytest.mark.model
def test_the_guide_sets_a_model_up(
    tmp_path: Path, bases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "first-model.md").read_text()
    _, _set_up, model_file, *_ = guide.split("```sh\n")
    commands = model_file.split("```")[0].splitlines()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RATCHET_BASES", str(bases))
    for command in commands:
        program, *arguments = command.split()
        assert program == "ratchet"
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    file = load_models(tmp_path / "models").get("dates")
    assert file.curation.trusted_users == ("ada", "bob", "cem")
    assert "the last of 30" in " ".join(result.output.split())


def test_a_hub_base_needs_its_serving_file_only(small_bases: Path) -> None:
    (small_bases / "name.gguf").write_bytes(b"")
    result = new(small_bases, "m", "--base", "owner/name@v1", "--serving", "name.gguf")
    assert result.exit_code == 0, result.output
    file = load_models(small_bases.parent / "models").get("m")
    assert (file.base.training, file.base.serving) == ("owner/name@v1", "name.gguf")
    assert not file.lanes["adaptive"].training.named
