"""Base and adapter merged into one model in transformers format, for `ratchet export`:
`python -m services.trainer.training.merged_base --help` lists its arguments.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from services.trainer.machine.bases import locate_base
from shared.errors import InvalidArtefact, RatchetError

TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja")


def write_merged(base: Path, adapter: Path, out: Path) -> None:
    """Write a merged model, with the base's tokenizer, into the new folder `out`. The merge is
    computed in fp32 and stored in the precision of the base.
    """
    stored = AutoConfig.from_pretrained(base).dtype or torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged: Any = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    merged.to(stored).save_pretrained(out)
    for pattern in TOKENIZER_FILES:
        for file in base.glob(pattern):
            shutil.copyfile(file, out / file.name)


def main() -> int:
    """Write the model. Return the exit status."""
    parser = argparse.ArgumentParser(prog="services.trainer.training.merged_base")
    parser.add_argument("bases", type=Path, help="folder of bases")
    parser.add_argument("training", help="base.training of the model file")
    parser.add_argument("digest", help="digest of the base that the adapter was made on")
    parser.add_argument("adapter", type=Path, help="folder of the adapter")
    parser.add_argument("out", type=Path, help="folder to write")
    arguments = parser.parse_args()
    try:
        base = locate_base(arguments.bases, arguments.training)
        if base.digest != arguments.digest:
            raise InvalidArtefact(
                f"the adapter was made on a base with digest {arguments.digest}, and "
                f"{base.folder} has {base.digest}; put that base back"
            )
        write_merged(base.folder, arguments.adapter, arguments.out)
    except (RatchetError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
