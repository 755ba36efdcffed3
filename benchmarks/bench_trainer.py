"""Training speed and memory against TRL and transformers on the same tokens in the same batches,
and the time from a batch to its outcome.

Each run has its own process. The implementations take turns, so that other work on the machine
affects all of them. Runs of 500 examples are measured over their first steps.

- `tokens_per_second_ratio_trl`, `_transformers`: of a run of 50 examples, and `_500` of one of 500;
  the median over rounds.
- `roofline_share`: 4 × parameters × tokens per second over the rate of a large matrix product in
  the run's precision, measured in the same process.
- `peak_memory_ratio_trl`: peak resident memory of the process over TRL's.
- `batch_to_outcome_seconds`, and each of its phases: 50 examples through the service, on a real
  Apache Kafka, with a warm training process.
"""

import argparse
import asyncio

from benchmarks.results import Result, report
from benchmarks.trainer import batch_latency
from benchmarks.trainer.comparison import run_in_turns, summarise

SIZES = {50: 5, 500: 8}
"""Examples of a run, and its number of measured steps."""


def bench_rates(rounds: int, threads: int) -> list[Result]:
    results: list[Result] = []
    for examples, steps in SIZES.items():
        runs = run_in_turns(rounds, str(examples), str(steps), "--threads", str(threads))
        if (
            examples == 50
            and len(
                {run.tokens for implementation_runs in runs.values() for run in implementation_runs}
            )
            > 1
        ):
            raise RuntimeError("the implementations did not train on the same tokens")
        results += summarise(runs, "" if examples == 50 else f"_{examples}")
    return results


def bench_batch_latency(threads: int) -> list[Result]:
    seconds = asyncio.run(batch_latency.measure(threads))
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
