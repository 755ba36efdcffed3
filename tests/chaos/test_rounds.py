"""A short run of `make chaos`."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(300)]


def test_five_random_rounds_lose_and_duplicate_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--rounds", "5", "--seed", "4"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, *rounds, last = ended.stdout.splitlines()
    assert first == "seed 4"
    assert len(rounds) == 5
    figures = json.loads(last)
    assert (figures["rounds"], figures["lost"], figures["doubled"], figures["seed"]) == (5, 0, 0, 4)
    assert figures["sent"] > 300
    assert figures["kills"] > 0
