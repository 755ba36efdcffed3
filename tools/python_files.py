"""Tracked Python files, parsed."""

import ast
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path


def tracked(patterns: Sequence[str]) -> list[Path]:
    """List the files that git tracks under any of `patterns`, sorted; paths start from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns],
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(path for path in map(Path, set(listed.stdout.splitlines())) if path.is_file())


def modules(folders: Sequence[str]) -> Iterator[tuple[Path, ast.Module]]:
    """Parse every Python file of `folders`."""
    for path in tracked(folders):
        if path.suffix == ".py":
            yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
