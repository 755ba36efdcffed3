"""Structure checks: unique class names across packages, and a bounded number of modules per folder.

import-linter checks import cycles and imports between packages (pyproject.toml).
"""

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tools.python_files import modules, tracked

PRODUCT = ("services", "shared", "ratchet", "clients")
FOLDERS = (*PRODUCT, "benchmarks", "deploy", "tools")
MAX_MODULES = 16

SHARED_NAMES = {
    "Message": "the client stands alone and repeats the contract of feedback",
}
"""Class names that may occur in two packages, each with its reason."""


def class_faults() -> Iterator[str]:
    """Yield a line for each class name that two packages define without a stated reason."""
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for path, tree in modules(PRODUCT):
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    for name, paths in sorted(places.items()):
        if len(paths) > 1 and name not in SHARED_NAMES:
            yield f"class {name} is defined in {', '.join(map(str, paths))}; rename all but one"
        if len(paths) < 2 and name in SHARED_NAMES:
            yield f"class {name} is defined once: delete its reason in tools/structure.py"
    for name in SHARED_NAMES.keys() - places.keys():
        yield f"class {name} is not defined: delete its reason in tools/structure.py"


def folder_faults() -> Iterator[str]:
    """Yield a line for each folder with more modules than `MAX_MODULES`."""
    counts = Counter(
        path.parent
        for path in tracked(FOLDERS)
        if path.suffix == ".py" and path.name != "__init__.py"
    )
    for folder, count in sorted(counts.items()):
        if count > MAX_MODULES:
            yield f"{folder}: {count} modules, at most {MAX_MODULES}; make packages"


def main() -> int:
    """Print the faults; return the exit status."""
    faults = [*class_faults(), *folder_faults()]
    print("\n".join(faults) or "structure: no faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
