"""Merge of a base and an adapter from the command line, for `ratchet export`:
`python -m services.registry.gguf BASE OUT [--adapter FOLDER]` prints the digest of the file.
"""

import argparse
import sys
from pathlib import Path

from services.registry.gguf.merge import merge
from shared.errors import RatchetError
from shared.storage.adapters import Adapter, adapter_files


def main() -> int:
    """Merge and print the digest. Return the exit status."""
    parser = argparse.ArgumentParser(prog="services.registry.gguf", description=__doc__)
    parser.add_argument("base", type=Path, help="GGUF file of the base")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--adapter", type=Path, help="folder of a verified adapter")
    arguments = parser.parse_args()
    folder: Path | None = arguments.adapter
    try:
        # A merge reads only the files; the caller has verified them.
        adapter = Adapter(adapter_files(folder), base_digest="") if folder else None
        print(merge(arguments.base, adapter, arguments.out).digest)
    except (RatchetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
