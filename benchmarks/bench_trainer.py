"""How fast the trainer is, against its peers on the same tokens in the same batches, and how long a
batch takes to its outcome.

Each run has a process of its own; the contenders take turns, so that what else the machine does
meets all of them. Runs of 500 examples are measured over their first steps.

- `tokens_per_second_ratio_trl`, `_transformers`: of a run of 50 examples, and `_500` of one of 500;
  the median over rounds.
- `roofline_share`: 4 × parameters × tokens a second over the rate of a large matrix product in the
  run's precision, measured in the same process.
- `peak_memory_ratio_trl`: resident memory of the process at its highest, over TRL's.
- `batch_to_outcome_seconds`, and each of its phases: 50 examples through the service, on a real
  Apache Kafka, with a warm child.
"""

import argparse
import asyncio

from benchmarks.results import Result, report
from benchmarks.trainer import batch_latency as outcome
from benchmarks.trainer.comparison import run_in_turns, summarise

SIZES = {50: 5, 500: 8}
"""Examples of a run, and the steps of it that are measured."""


def bench_rates(rounds: int, threads: int) -> list[Result]:
    results: list[Result] = []
    for examples, steps in SIZES.items():
        runs = run_in_turns(rounds, str(examples), str(steps), "--threads", str(threads))
        if examples == 50 and len({run.tokens for of_one in runs.values() for run in of_one}) > 1:
            raise RuntimeError("the contenders did not train on the same tokens")
        results += summarise(runs, "" if examples == 50 else f"_{examples}")
    return results


def bench_batch_latency(threads: int) -> list[Result]:
    seconds = asyncio.run(outcome.measure(threads))
    total = seconds.pop("total")
    phases = [
        Result(f"{phase}_seconds", value, "s", baseline=total) for phase, value in seconds.items()
    ]
    return [Result("batch_to_outcome_seconds", total, "s"), *phases]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="cores that each run uses; 0 is all")
    arguments = parser.parse_args()
    report(
        "trainer",
        [
            *bench_rates(arguments.rounds, arguments.threads),
            *bench_batch_latency(arguments.threads),
        ],
    )


if __name__ == "__main__":
    main()
