"""How fast the trainer is, against its peers on the same tokens in the same batches, and how long a batch takes to its outcome.

Each run has a process of its own; the contenders take turns, so that what else the machine does meets all of them.
Runs of 500 examples are measured over their first steps.

- `tokens_per_second_ratio_trl`, `_transformers`: of a run of 50 examples, and `_500` of one of 500; the median over rounds.
- `roofline_share`: 4 × parameters × tokens a second over the rate of a large matrix product in the run's precision,
  measured in the same process.
- `peak_memory_ratio_trl`: resident memory of the process at its highest, over TRL's.
- `batch_to_outcome_seconds`, and each of its phases: 50 examples through the service, on a real Apache Kafka, with a warm child.
"""

import argparse
import asyncio
import subprocess
import sys
from statistics import median

from pydantic import TypeAdapter

from benchmarks import outcome
from benchmarks.contenders import CONTENDERS, Run
from benchmarks.results import Result, report

RUN = TypeAdapter(Run)
SIZES = {50: 5, 500: 8}
"""Examples of a run, and the steps of it that are measured."""


def bench_rates(rounds: int, threads: int) -> list[Result]:
    results: list[Result] = []
    for examples, steps in SIZES.items():
        runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
        for _ in range(rounds):
            for name in CONTENDERS:
                runs[name].append(_run(name, examples, steps, threads))
        results += _compared(runs, "" if examples == 50 else f"_{examples}")
    return results


def _run(name: str, examples: int, steps: int, threads: int) -> Run:
    command = [sys.executable, "-m", "benchmarks.contenders", name, str(examples), str(steps), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return RUN.validate_json(done.stdout.splitlines()[-1])


def _compared(runs: dict[str, list[Run]], suffix: str) -> list[Result]:
    own = runs["ratchet"]
    if any(run.tokens != one.tokens for peer in runs.values() for run, one in zip(peer, own, strict=True)) and not suffix:
        raise RuntimeError("the contenders did not train on the same tokens")
    results = [Result(f"tokens_per_second{suffix}", median(map(_rate, own)), "1/s")]
    for peer in ("trl", "transformers"):
        ratio = median(_rate(one) / _rate(other) for one, other in zip(own, runs[peer], strict=True))
        results.append(Result(f"tokens_per_second_ratio_{peer}{suffix}", ratio, "times"))
        results.append(Result(f"{peer}_tokens_per_second{suffix}", median(map(_rate, runs[peer])), "1/s"))
    share = median(4 * run.parameters * _rate(run) / run.matrix_flops for run in own)
    results.append(Result(f"roofline_share{suffix}", share, "share"))
    memory, of_trl = (median(run.peak_bytes for run in runs[name]) for name in ("ratchet", "trl"))
    results.append(Result(f"peak_memory_ratio_trl{suffix}", memory / of_trl, "share"))
    results.append(Result(f"peak_memory{suffix}", memory / 2**30, "GiB", baseline=of_trl / 2**30))
    return results


def _rate(run: Run) -> float:
    return run.tokens / run.seconds


def bench_outcome(threads: int) -> list[Result]:
    seconds = asyncio.run(outcome.measure(threads))
    total = seconds.pop("total")
    phases = [Result(f"{phase}_seconds", value, "s", baseline=total) for phase, value in seconds.items()]
    return [Result("batch_to_outcome_seconds", total, "s"), *phases]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="cores that each run uses; 0 is all")
    arguments = parser.parse_args()
    report("trainer", [*bench_rates(arguments.rounds, arguments.threads), *bench_outcome(arguments.threads)])


if __name__ == "__main__":
    main()
