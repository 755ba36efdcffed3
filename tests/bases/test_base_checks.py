"""`ratchet models check --bases` and `ratchet doctor` refuse what the trainer would refuse."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ratchet.cli.commands import app
from ratchet.cli.doctor import check_trainer
from services.trainer.environment import check_bases
from services.trainer.settings import TrainerSettings
from tests.bases import templates
from tests.bases.tokenizers_of_kinds import byte_level
from tests.bases.twins import save_twin


@pytest.fixture
def settings(tmp_path: Path) -> TrainerSettings:
    """Settings with three models: good, always thinking, and without files."""
    for name, template in (("good", templates.PLAIN), ("thinks", templates.THINKS_ALWAYS)):
        tokenizer = byte_level(templates.TURN_TOKENS, chat_template=template)
        end = tokenizer.convert_tokens_to_ids("<|eot|>")
        save_twin(tmp_path / "bases" / name, tokenizer, end)
    (tmp_path / "models").mkdir()
    for name in ("good", "thinks", "absent"):
        declared = f"model: {name}\nbase: {{training: {name}, serving: {name}/model.gguf}}\n"
        (tmp_path / "models" / f"{name}.yaml").write_text(declared)
    return TrainerSettings(models=tmp_path / "models", bases=tmp_path / "bases")


def test_a_base_is_checked_without_its_weights(settings: TrainerSettings) -> None:
    for weights in settings.bases.glob("*/*.safetensors"):
        weights.unlink()
    checks = {check.name: check for check in check_bases(settings)}
    assert sorted(checks) == ["good/base", "thinks/base"]
    assert checks["good/base"].found == "good: answers end with <|eot|>"
    assert (checks["thinks/base"].state, "thinking" in checks["thinks/base"].found) == (
        "problem",
        True,
    )


def test_conflicts_and_other_architectures_are_shown(settings: TrainerSettings) -> None:
    file = settings.bases / "good" / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [0, 1]}))
    config = settings.bases / "thinks" / "config.json"
    config.write_text('{"model_type": "clip"}')
    good, other = check_bases(settings)
    assert (good.state, "first lists" in good.found or "lists only" in good.found) == (
        "warning",
        True,
    )
    assert other.found == ("transformers has no causal language model for the architecture clip")
    config.write_text("{")
    assert check_bases(settings)[1].found.startswith("it cannot be loaded: ")


def test_the_command_line_refuses_such_a_base(settings: TrainerSettings) -> None:
    folders = ["--models", str(settings.models), "--bases", str(settings.bases)]
    result = CliRunner().invoke(app, ["models", "check", *folders])
    assert result.exit_code == 1
    output = " ".join(result.output.split())
    assert "good/base: ok: good: answers end with <|eot|>" in output
    assert "thinks/base: problem: the base cannot be used: its chat template opens" in output
    assert "absent/adaptive: problem" in output
    unchecked = CliRunner().invoke(app, ["models", "check", "--models", str(settings.models)])
    assert unchecked.exit_code == 0
    rows = check_trainer(settings.models, settings.bases)
    assert [row.state for row in rows if row.name == "thinks/base"] == ["problem"]
