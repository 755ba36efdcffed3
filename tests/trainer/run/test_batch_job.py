"""Facts of a batch's run: its configuration is that of the lane, with the batch's own values."""

from pathlib import Path

import pytest

from services.trainer.machine.bases import LocalBase
from services.trainer.run.batch_job import run_facts
from shared.config.model_file import ModelFile
from shared.errors import ContractViolation
from shared.storage.object_store import MemoryStore
from tests.support.tickets import DIGEST, write_batch

BASE = LocalBase(Path("base"), "base", DIGEST)
FILE = ModelFile.model_validate(
    {
        "model": "m",
        "base": {"training": "base", "serving": "base.gguf"},
        "lanes": {"adaptive": {"training": {"epochs": 3}}},
    }
)
BATCH = write_batch(MemoryStore(), "m", 0, [], [])


def test_hyperparameters_of_a_batch_replace_those_of_its_lane() -> None:
    assert run_facts(BATCH, FILE, BASE).configuration == FILE.lanes["adaptive"].training
    batch = BATCH.model_copy(update={"hyperparameters": {"rank": 32}})
    configuration = run_facts(batch, FILE, BASE).configuration
    assert (configuration.rank, configuration.epochs) == (32, 3)


def test_invalid_hyperparameters_of_a_batch_are_a_violation() -> None:
    batch = BATCH.model_copy(update={"hyperparameters": {"rank": 1000}})
    with pytest.raises(ContractViolation, match=r"hyperparameters.*outside 4 to 64"):
        run_facts(batch, FILE, BASE)
