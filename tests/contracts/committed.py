"""Committed contract files and golden examples."""

import json
from pathlib import Path
from typing import Any

DOCS = Path("docs")
GOLDEN = Path("tests/shared/golden")


def json_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


EXAMPLES: dict[str, dict[str, Any]] = {
    path.stem: json_of(path) for path in sorted(GOLDEN.glob("*.v?.json"))
}
