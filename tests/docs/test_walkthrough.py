"""The walkthrough names functions that exist, few enough to read in one sitting."""

import ast
import re
from pathlib import Path

import pytest

PAGE = Path("docs/walkthrough.md")
LINK = re.compile(r"^\| \d+ \| \[`([\w.]+)`\]\(([^)#]+)\)", re.MULTILINE)
STEPS = LINK.findall(PAGE.read_text(encoding="utf-8"))


def test_walkthrough_has_at_most_25_functions() -> None:
    assert 20 <= len(STEPS) <= 25


@pytest.mark.parametrize(("name", "path"), STEPS)
def test_function_of_the_walkthrough_exists(name: str, path: str) -> None:
    body = ast.parse((PAGE.parent / path).read_text(encoding="utf-8")).body
    *classes, function = name.split(".")
    for each in classes:
        (definition,) = [
            node for node in body if isinstance(node, ast.ClassDef) and node.name == each
        ]
        body = definition.body
    functions = [
        node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert function in functions
