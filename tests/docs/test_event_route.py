"""The route of one event stays short enough to follow in one sitting."""

import json
import subprocess
import sys

MAX_FUNCTIONS = 80
MAX_FILE_CHANGES = 35


def test_route_of_an_event_is_short() -> None:
    command = [sys.executable, "-m", "tests.event_route", "--json"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    counts = json.loads(output.splitlines()[-1])
    assert 0 < counts["functions"] <= MAX_FUNCTIONS
    assert 0 < counts["file_changes"] <= MAX_FILE_CHANGES
