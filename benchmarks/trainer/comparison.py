"""Contenders in turns, so that what else the machine does meets all of them, and what comes of it."""

import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from pydantic import TypeAdapter

from benchmarks.results import Result
from benchmarks.trainer.baselines import IMPLEMENTATIONS, BenchmarkRun

RUN = TypeAdapter(BenchmarkRun)


def run_in_turns(rounds: int, *told: str) -> dict[str, list[BenchmarkRun]]:
    """The runs of each contender; `told` is what `benchmarks.trainer.baselines` is told besides the
    name.
    """
    runs: dict[str, list[BenchmarkRun]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(rounds):
        for name in IMPLEMENTATIONS:
            runs[name].append(_run(name, *told))
    return runs


def _run(name: str, *told: str) -> BenchmarkRun:
    command = [sys.executable, "-m", "benchmarks.trainer.baselines", name, *told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return RUN.validate_json(done.stdout.splitlines()[-1])


def summarise(runs: dict[str, list[BenchmarkRun]], suffix: str) -> list[Result]:
    """Medians over rounds, and of the ratios within each; metrics end in `suffix`."""
    own = runs["ratchet"]
    results = [Result(f"tokens_per_second{suffix}", median(map(_rate, own)), "1/s")]
    for peer in ("trl", "transformers"):
        ratio = median(
            _rate(one) / _rate(other) for one, other in zip(own, runs[peer], strict=True)
        )
        results.append(Result(f"tokens_per_second_ratio_{peer}{suffix}", ratio, "times"))
        results.append(
            Result(f"{peer}_tokens_per_second{suffix}", median(map(_rate, runs[peer])), "1/s")
        )
    share = median(4 * run.parameters * _rate(run) / run.matrix_flops for run in own)
    results.append(Result(f"roofline_share{suffix}", share, "share"))
    memory, of_trl = (_peak(runs[name]) for name in ("ratchet", "trl"))
    results.append(Result(f"peak_memory_ratio_trl{suffix}", memory / of_trl, "share"))
    results.append(Result(f"peak_memory{suffix}", memory / 2**30, "GiB", baseline=of_trl / 2**30))
    return results


def _rate(run: BenchmarkRun) -> float:
    return run.tokens / run.seconds


def _peak(runs: Sequence[BenchmarkRun]) -> float:
    return median(run.peak_bytes for run in runs)
