"""`ratchet doctor`: its own checks, except the trainer's."""

from pathlib import Path

import pytest

from ratchet.cli.doctor import (
    check_broker,
    check_model_files,
    check_object_store,
    check_ollama,
    check_rehearsal,
    check_serving_bases,
)
from ratchet.local_stack.ports import free_port
from shared.config.models import load_models

MODEL = "model: m\nbase: {training: small, serving: small/model.gguf}\n"


def write(folder: Path, text: str) -> Path:
    (folder / "m.yaml").write_text(text)
    return folder


def test_the_object_store_check_writes_and_reads(tmp_path: Path) -> None:
    assert check_object_store(str(tmp_path / "objects")).state == "ok"
    (tmp_path / "file").write_text("not a folder")
    check = check_object_store(str(tmp_path / "file"))
    assert check.state == "problem"
    assert "RATCHET_OBJECT_STORE" in check.advice
    assert check_object_store("nosuchprotocol://bucket").state == "problem"


def test_model_file_errors_name_line_and_field(tmp_path: Path) -> None:
    models, good = check_model_files(write(tmp_path, MODEL))
    assert models is not None
    assert (good.state, good.found) == ("ok", "m")
    models, bad = check_model_files(
        write(tmp_path, MODEL + "lanes: {master: {training: {rank: 4}}}\n")
    )
    assert (models, bad.state) == (None, "problem")
    assert "m.yaml:3: lanes.master.training.rank" in bad.found
    assert (
        check_model_files(write(tmp_path, MODEL + "gate: {golden: absent.jsonl}\n"))[1].state
        == "problem"
    )


def test_a_missing_serving_base_is_a_problem(tmp_path: Path) -> None:
    models = load_models(write(tmp_path, MODEL))
    (absent,) = check_serving_bases(models, tmp_path)
    assert absent.state == "problem"
    assert "small/model.gguf" in absent.found
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "model.gguf").touch()
    assert [each.state for each in check_serving_bases(models, tmp_path)] == ["ok"]


def test_ollama_is_required_only_for_ollama_targets(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    check = check_ollama(
        load_models(write(tmp_path, MODEL + f"deploy: [{{kind: ollama, location: '{nowhere}'}}]\n"))
    )
    assert check.state == "problem"
    assert nowhere in check.found


async def test_an_unreachable_broker_is_a_problem() -> None:
    assert (await check_broker(f"127.0.0.1:{free_port()}")).state == "problem"
    assert (await check_broker("no port")).state == "problem"


@pytest.mark.kafka
async def test_a_reachable_broker_is_ok(broker_at: str) -> None:
    assert (await check_broker(broker_at)).state == "ok"


@pytest.fixture
def broker_at(request: pytest.FixtureRequest) -> str:
    """The session's broker."""
    return str(request.getfixturevalue("broker"))


def test_rehearsed_prompts_that_are_evaluated_are_warned_of(tmp_path: Path) -> None:
    prompt = '{"messages": [{"role": "user", "content": "Who are you?"}]}'
    (tmp_path / "set.jsonl").write_text(prompt)
    lane = "gate: {regression_set: set.jsonl}\nlanes: {adaptive: {rehearsal: own.jsonl}}\n"
    (tmp_path / "own.jsonl").write_text(prompt.replace("Who are you", "Where are you"))
    assert check_rehearsal(load_models(write(tmp_path, MODEL + lane))) == []
    (tmp_path / "own.jsonl").write_text(prompt)
    (warning,) = check_rehearsal(load_models(write(tmp_path, MODEL + lane)))
    assert (warning.name, warning.state) == ("m/adaptive/rehearsal", "warning")
    assert "own.jsonl and the evaluation sets share 1 prompts: Who are you?" in warning.found
    built_in = MODEL + "gate: {regression_set: set.jsonl}\n"
    assert check_rehearsal(load_models(write(tmp_path, built_in))) == []
