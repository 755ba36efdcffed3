"""`ratchet models check`: display of policies, and errors for invalid ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.cli.commands import app
from shared.config.curation import CurationSettings
from shared.config.models import load_models
from shared.errors import Misconfigured, ModelFileError

MODEL = """model: m
base: {training: b, serving: b.gguf}
reward:
  name: mine
  version: 2
  format: json
redaction: {kinds: [email, phone], regions: [DE]}
"""


def test_the_policies_are_shown(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MODEL)
    result = CliRunner().invoke(app, ["models", "check", "--folder", str(tmp_path)])
    assert result.exit_code == 0
    output = " ".join(result.output.split())
    assert (
        "m: reward policy mine v2 (validation 1, action 1, correction 1, rules 0.5; format: "
        "JSON); redacts email, phone (phones of DE)" in output
    )
    (model,) = json.loads(
        CliRunner().invoke(app, ["models", "check", "--json", "--folder", str(tmp_path)]).output
    )
    assert (model["reward"]["version"], model["redaction"]["regions"]) == (2, ["DE"])


def test_an_invalid_policy_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MODEL.replace("format: json", "pattern: '(a'"))
    failed = CliRunner().invoke(app, ["models", "check", "--folder", str(tmp_path)])
    assert isinstance(failed.exception, ModelFileError)
    assert "m.yaml:6: reward.pattern" in str(failed.exception)


def test_a_team_too_small_for_a_batch_is_warned_of(tmp_path: Path) -> None:
    """Ten users give five examples each; trusted users may give them all."""
    file = tmp_path / "m.yaml"
    file.write_text(MODEL)

    def check() -> tuple[str, int]:
        plain, as_json = (
            CliRunner().invoke(app, ["models", "check", *option, "--folder", str(tmp_path)])
            for option in ([], ["--json"])
        )
        return " ".join(plain.output.split()), json.loads(as_json.output)[0]["users_needed"]

    output, users = check()
    assert users == 10
    assert (
        "m: warning: batches fill only with the feedback of 10 or more users, because the examples "
        "of each are limited (examples_per_user: 5, user_share: 0.1); for a smaller team, list its "
        "members in curation.trusted_users" in output
    )
    file.write_text(MODEL + "curation: {trusted_users: [ada, bob]}\n")
    output, users = check()
    assert users == 1
    assert "warning" not in output


@pytest.mark.parametrize(
    ("settings", "users"),
    [
        ({}, 10),
        ({"batch_size": 12, "examples_per_user": 5, "user_share": 1.0}, 3),
        ({"examples_per_user": 50, "user_share": 0.25}, 4),
        ({"pool": 200}, 40),
        ({"longest_wait_hours": 24.0, "user_share": 1.0}, 2),
        ({"examples_per_user": 50, "user_share": 1.0}, 1),
    ],
)
def test_users_needed_follow_from_the_limits(settings: dict[str, Any], users: int) -> None:
    assert CurationSettings(**settings).users_needed == users


def test_files_without_trusted_users_keep_their_digest() -> None:
    """Stored events and imported datasets compare it, or the settings themselves."""
    assert "trusted_users" not in CurationSettings().model_dump(mode="json")


@pytest.mark.parametrize("option", ["--models", "--model-files", "--folder"])
def test_the_folder_of_model_files_has_one_option(option: str, tmp_path: Path) -> None:
    """Its earlier names stay valid."""
    (tmp_path / "m.yaml").write_text(MODEL)
    checked = CliRunner().invoke(app, ["models", "check", "--json", option, str(tmp_path)])
    assert [row["model"] for row in json.loads(checked.output)] == ["m"]
    for command in (["up"], ["demo"], ["doctor"], ["forget"], ["train"], ["dataset", "import"]):
        assert "--models" in CliRunner().invoke(app, [*command, "--help"]).output, command


def test_an_unknown_model_is_answered_with_a_similar_one(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MODEL)
    (tmp_path / "support.yaml").write_text(MODEL.replace("model: m", "model: support"))
    declared = load_models(tmp_path)
    assert declared.require("m") is declared.files["m"]
    with pytest.raises(Misconfigured, match="'suport'; declared: m, support; did you mean support"):
        declared.require("suport")


def test_effective_settings_are_shown_with_reasons(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(MODEL + "lanes: {adaptive: {training: {rank: 4}}}\n")
    arguments = ["models", "check", "--folder", str(tmp_path), "--bases", str(tmp_path / "none")]
    output = " ".join(CliRunner().invoke(app, arguments).output.split())
    assert "m/adaptive: effective settings on" in output
    assert "rehearsal: 24 built-in prompts" in output
    assert "time of a run: no estimate: it needs the files of the base" in output
    (model,) = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    settings = {row["name"]: row for row in model["lanes"][0]["settings"]}
    assert settings["rank"] == {"name": "rank", "value": 4, "reason": "set in the model file"}
    assert settings["epochs"]["value"] == 3
    assert "three passes" in settings["epochs"]["reason"]
