"""Interleaved runs of all implementations, and a summary of their measurements. Taking turns
spreads the effect of other work on the machine.
"""

import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from pydantic import TypeAdapter

from benchmarks.results import Result
from benchmarks.trainer.baselines import IMPLEMENTATIONS, BenchmarkRun

RUN = TypeAdapter(BenchmarkRun)


def run_in_turns(rounds: int, *arguments: str) -> dict[str, list[BenchmarkRun]]:
    """Run each implementation `rounds` times; `arguments` are those of
    `benchmarks.trainer.baselines` after the name.
    """
    runs: dict[str, list[BenchmarkRun]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(rounds):
        for name in IMPLEMENTATIONS:
            runs[name].append(_run(name, *arguments))
    return runs


def _run(name: str, *arguments: str) -> BenchmarkRun:
    command = [sys.executable, "-m", "benchmarks.trainer.baselines", name, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}:\n{process.stderr[-2000:]}")
    return RUN.validate_json(process.stdout.splitlines()[-1])


def summarise(runs: dict[str, list[BenchmarkRun]], suffix: str) -> list[Result]:
    """Compute medians over rounds, and of the ratios within each round; metric names end in
    `suffix`.
    """
    own = runs["ratchet"]
    results = [Result(f"tokens_per_second{suffix}", median(map(_rate, own)), "1/s")]
    for peer in ("trl", "transformers"):
        ratio = median(
            _rate(own_run) / _rate(peer_run)
            for own_run, peer_run in zip(own, runs[peer], strict=True)
        )
        results.append(Result(f"tokens_per_second_ratio_{peer}{suffix}", ratio, "times"))
        results.append(
            Result(f"{peer}_tokens_per_second{suffix}", median(map(_rate, runs[peer])), "1/s")
        )
    share = median(4 * run.parameters * _rate(run) / run.matrix_flops for run in own)
    results.append(Result(f"roofline_share{suffix}", share, "share"))
    own_peak, trl_peak = (_peak(runs[name]) for name in ("ratchet", "trl"))
    results.append(Result(f"peak_memory_ratio_trl{suffix}", own_peak / trl_peak, "share"))
    results.append(
        Result(f"peak_memory{suffix}", own_peak / 2**30, "GiB", baseline=trl_peak / 2**30)
    )
    return results


def _rate(run: BenchmarkRun) -> float:
    return run.tokens / run.seconds


def _peak(runs: Sequence[BenchmarkRun]) -> float:
    return median(run.peak_bytes for run in runs)
