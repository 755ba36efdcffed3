"""`ratchet models check`: display of policies, and errors for invalid ones."""

import json
from pathlib import Path

from typer.testing import CliRunner

from ratchet.cli.commands import app
from shared.errors import ModelFileError

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
