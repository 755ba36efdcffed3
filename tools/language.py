"""Language checks: docstrings start plainly, test names are short, banned idioms become fewer.

`idioms.txt` holds one idiom per line: how often it may occur, then a regular expression. A count
that is exceeded fails; so does one that is no longer reached, until the number is lowered.

    python -m tools.language            check, exit status 1 when something is wrong
    python -m tools.language --lower    write the counts of today, only ever lower ones
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.python_files import modules, tracked

DOCUMENTED = ("services", "shared", "ratchet", "clients", "tools", "benchmarks", "deploy")
OPENINGS = re.compile(r"(What|Whatever|Whether|How|Who|Whoever|Whose|Something)\b")
SEARCHED = ("*.py", "*.md", "*.html", "*.yaml", "*.toml", "Makefile")
NOT_SEARCHED = ("CHANGELOG.md", "docs/adr/", "tools/", "tests/fixtures/")
MAX_TEST_NAME = 60
IDIOMS = Path(__file__).parent / "idioms.txt"


def docstring_faults() -> Iterator[str]:
    """Yield file, line and opening of each docstring that starts with a relative clause."""
    for path, tree in modules(DOCUMENTED):
        for node in ast.walk(tree):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            text = ast.get_docstring(node)
            if text and OPENINGS.match(text):
                line = getattr(node, "lineno", 1)
                opening = text.splitlines()[0][:60]
                yield (
                    f"{path}:{line}: docstring starts with {text.split()[0]!r}: {opening!r}; "
                    "start with an imperative or a noun phrase"
                )


def test_name_faults() -> Iterator[str]:
    """Yield a line for each test whose name is longer than `MAX_TEST_NAME`."""
    for path, tree in modules(["tests"]):
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name.startswith("test_")
                and len(node.name) > MAX_TEST_NAME
            ):
                yield (
                    f"{path}:{node.lineno}: {node.name} has {len(node.name)} characters, "
                    f"at most {MAX_TEST_NAME}"
                )


def idiom_counts() -> list[tuple[int, str, list[str]]]:
    """Return for each idiom its allowed count, its expression and where it occurs today."""
    rows = [line.split("\t", 1) for line in IDIOMS.read_text().splitlines() if line.strip()]
    texts = [
        (path, path.read_text(encoding="utf-8"))
        for path in tracked(SEARCHED)
        if not str(path).startswith(NOT_SEARCHED)
    ]
    return [
        (int(allowed), expression, list(_places(re.compile(expression), texts)))
        for allowed, expression in rows
    ]


def idiom_faults() -> Iterator[str]:
    """Yield a line for each idiom whose count is not the one in `idioms.txt`."""
    for allowed, expression, places in idiom_counts():
        if len(places) > allowed:
            yield f"idiom {expression!r}: {len(places)} times, {allowed} allowed: {places[-5:]}"
        elif len(places) < allowed:
            yield (
                f"idiom {expression!r}: {len(places)} times, {allowed} allowed; lower the count "
                "with: python -m tools.language --lower"
            )


def lower() -> None:
    """Write the counts of today into `idioms.txt` where they are lower."""
    rows = [
        f"{min(allowed, len(places))}\t{expression}"
        for allowed, expression, places in idiom_counts()
    ]
    IDIOMS.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _places(expression: re.Pattern[str], texts: list[tuple[Path, str]]) -> Iterator[str]:
    for path, text in texts:
        for match in expression.finditer(text):
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1}"


def main() -> int:
    """Print the faults; return the exit status."""
    if "--lower" in sys.argv[1:]:
        lower()
    faults = [*docstring_faults(), *test_name_faults(), *idiom_faults()]
    print("\n".join(faults) or "language: no faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
