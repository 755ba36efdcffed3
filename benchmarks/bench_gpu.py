"""Training speed and memory on a GPU against TRL and transformers on the same tokens in the same
batches: a Llama with a billion random weights, in 4 bits with gradient checkpointing (`qlora`) and
in 16 bits (`lora`). Nothing is downloaded.

Each run has its own process, and the implementations take turns. The first 8 steps, in which
kernels are loaded, are not counted.

- `tokens_per_second_ratio_trl_*`, `_transformers_*`: the median over rounds.
- `roofline_share_*`: 4 × parameters × tokens per second over the rate of a large matrix product in
  16 bits, measured in the same process.
- `peak_memory_*`: PyTorch's peak allocation on the device during training, including the base, over
  TRL's.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from benchmarks.results import Result, report
from benchmarks.trainer.comparison import run_in_turns, summarise
from benchmarks.trainer.random_base import llama_1b_config, save_random
from ratchet import console

NO_GPU = "no GPU on this machine (torch.cuda.is_available() is false): nothing measured"
EXAMPLES, STEPS = 320, 20
LANES = {"qlora": "nf4", "lora": "none"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lane", choices=LANES, help="run only this lane")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        console.out.print(NO_GPU)
        return
    console.out.print(torch.cuda.get_device_name())
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        save_random(llama_1b_config(), Path(folder), "cuda")
        torch.cuda.empty_cache()
        for lane in [arguments.lane] if arguments.lane else LANES:
            runs = run_in_turns(
                arguments.rounds,
                str(EXAMPLES),
                str(STEPS),
                "--base",
                folder,
                "--quantisation",
                LANES[lane],
            )
            results += summarise(runs, f"_{lane}")
            report("gpu", results)


if __name__ == "__main__":
    main()
