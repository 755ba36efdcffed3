"""Duration of the whole loop on this machine, by phase: from sending the 50th example to the new
version's first answer.

Runs the demo's good rounds on a separate stack. Compare phases within one run: absolute times drift
on a shared machine.
"""

from pathlib import Path
from statistics import median

from benchmarks.results import Result, report
from ratchet.demo.command import run_demo

ROUNDS = 2


def main() -> None:
    run = run_demo(
        ROUNDS,
        0,
        20,
        Path(".ratchet/bench/loop"),
        Path("models"),
        Path(".ratchet/bases"),
        seed=11,
        poison=False,
    )
    if run is None:
        raise SystemExit("interrupted")
    total = median(row.seconds.total for row in run.rounds)
    phases = {
        name: median(getattr(row.seconds, name) for row in run.rounds)
        for name in ("train", "evaluate", "deploy")
    }
    results = [Result("fiftieth_to_answering_seconds", total, "s")]
    results += [
        Result(f"{name}_seconds", seconds, "s", baseline=total) for name, seconds in phases.items()
    ]
    results.append(Result("exact_share_after_last_round", run.rounds[-1].exact, "share"))
    report("loop", results)


if __name__ == "__main__":
    main()
