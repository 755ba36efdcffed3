"""Reports of effective settings: base absent or present, and durations of earlier runs."""

from pathlib import Path

import pytest

from services.trainer.lane_reports import lane_reports
from services.trainer.settings import TrainerSettings
from shared.lane_report import LaneReport
from tests.support.tickets import tickets, write_batch
from tests.trainer.test_app import is_owner, record_of, started_world
from tests.trainer.tiny import save_tiny

MODEL = "model: m\nbase: {training: base, serving: base.gguf}\n"


def report(folder: Path, text: str = MODEL) -> LaneReport:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "m.yaml").write_text(text)
    settings = TrainerSettings(models=folder / "models", bases=folder, work=folder)
    (found,) = lane_reports(settings)
    return found


def test_what_needs_the_base_is_named_without_it(tmp_path: Path) -> None:
    found = report(tmp_path)
    assert (found.memory.highest, found.time.highest) == (None, None)
    assert "is not a folder" in found.memory.basis
    assert "needs the files of the base" in found.time.basis
    assert found.rehearsal.startswith("24 built-in prompts")
    off = report(tmp_path, MODEL + "lanes: {adaptive: {rehearsal: none}}\n")
    assert off.rehearsal == "none, as set in the model file"


def test_a_first_run_has_estimates(tmp_path: Path) -> None:
    save_tiny(tmp_path / "base")
    found = report(tmp_path)
    assert found.memory.highest is not None
    assert found.time.lowest is not None
    assert found.time.highest is not None
    assert 0 < found.time.lowest < found.time.highest
    assert {setting.name: setting.value for setting in found.settings}["learning_rate"] == 3e-3


@pytest.mark.parametrize(("changed", "is_used"), [("", True), ("epochs: 9", False)])
async def test_runs_with_these_settings_replace_estimates(
    tmp_path: Path, changed: str, is_used: bool
) -> None:
    """The run's base is in the folder itself, the report's is a copy below it."""
    save_tiny(tmp_path)
    save_tiny(tmp_path / "base")
    world = await started_world(tmp_path)
    world.child.gain = 0.0
    batch = write_batch(world.store, "m", 0, tickets(0, 10), tickets(500, 12))
    await world.trainer().handle(record_of(batch), is_owner)
    (outcome,) = world.rollbacks
    assert outcome.metrics is not None
    found = report(tmp_path, MODEL + f"lanes: {{adaptive: {{training: {{{changed}}}}}}}\n")
    seconds = outcome.metrics.train_seconds + outcome.metrics.evaluate_seconds
    assert (found.time.lowest == seconds) == is_used
