"""Generate the contracts: `python -m ratchet.contracts`, in the root of the repository."""

import json
import sys
from pathlib import Path

from ratchet.contracts.writing import IncompatibleSchema, write_contracts


def main() -> int:
    """Write the contract files and return the exit status."""
    golden = Path("tests/shared/golden")
    examples = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in golden.glob("*.v?.json")
    }
    try:
        changed = write_contracts(Path("docs"), examples)
    except IncompatibleSchema as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"wrote {path}" for path in changed) or "nothing has changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
