"""The route of one event stays short enough to follow in one sitting."""

import json
import subprocess
import sys

import pytest

MAX_FUNCTIONS = 80
MAX_FILE_CHANGES = 35
MAX_FILE_CHANGES_THROUGH_THREADS = 44
"""With the calls in worker threads: it may only shrink, and should reach `MAX_FILE_CHANGES`."""


@pytest.mark.parametrize(
    ("options", "most"),
    [([], MAX_FILE_CHANGES), (["--through-threads"], MAX_FILE_CHANGES_THROUGH_THREADS)],
)
def test_route_of_an_event_is_short(options: list[str], most: int) -> None:
    command = [sys.executable, "-m", "tests.event_route", "--json", *options]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = json.loads(output.splitlines()[-1])
    assert 0 < counts["functions"] <= MAX_FUNCTIONS
    assert 0 < counts["file_changes"] <= most
