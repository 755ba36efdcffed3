"""CPU profile of the streams services under load, by part of the code.

py-spy samples the stacks of the process from outside, 200 times a second, while it uses a core. A
sample belongs to the innermost frame of a part listed here: time in a C extension or the standard
library counts for its caller.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.bench_streams import StreamsBenchmark
from benchmarks.results import Result, report
from benchmarks.streams.synthetic_feedback import fill, received, scored
from benchmarks.throughput import measure_throughput, python_process, service_command
from shared.config.models import load_models
from shared.messaging.topics import DATASET_ENTRIES, FEEDBACK_RECEIVED, FEEDBACK_SCORED

EVENTS = {"feedback": 30_000, "dataset": 8_000}
SECONDS = 6

PARTS: tuple[tuple[str, str], ...] = (
    ("redaction", "shared/redaction/"),
    ("similarity", "services/dataset/ledger/minhash"),
    ("similarity", "services/dataset/ledger/similarity/"),
    ("similarity", "services/dataset/ledger/duplicate_index"),
    ("similarity", "rapidfuzz/"),
    ("similarity", "datasketch/"),
    ("events and codec", "shared/messaging/codec"),
    ("events and codec", "shared/storage/dataset_entries"),
    ("events and codec", "shared/events/"),
    ("events and codec", "cloudevents/"),
    ("rest of the service", "services/"),
    ("rest of the service", "shared/"),
    ("Kafka client", "aiokafka/"),
    ("Kafka client", "kafka/"),
    ("Faust", "faust/"),
    ("Faust", "mode/"),
    ("metrics", "prometheus_client/"),
    ("event loop", "asyncio/"),
)
"""Parts, and a substring of their files' paths; the first match counts."""


def part_of(stack: list[str]) -> str:
    """Return the part of a stack; frames are `function (file:line)`, the innermost last."""
    for frame in reversed(stack):
        for part, path in PARTS:
            if path in frame:
                return part
    return "other"


def shares(collapsed: str) -> dict[str, float]:
    """Return the share of each part, the largest first, from py-spy's collapsed stacks: frames
    separated by semicolons, and a count.
    """
    samples: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        samples[part_of(stack.split(";"))] += int(count)
    return {part: count / samples.total() for part, count in samples.most_common()}


async def profile(name: str) -> list[Result]:
    """Return the shares of a service at full speed."""
    async with StreamsBenchmark(f"profile-{name}") as bench:
        brokers, events = bench.broker.bootstrap_servers, EVENTS[name]
        if name == "feedback":
            await fill(brokers, FEEDBACK_RECEIVED, received(events, bench.names))
        else:
            await fill(brokers, FEEDBACK_SCORED, scored(events, load_models(bench.models)))
        command, settings = service_command(
            name, f"profile-{name}", brokers, bench.folder, bench.models
        )
        written = FEEDBACK_SCORED if name == "feedback" else DATASET_ENTRIES
        with python_process(bench.folder / f"{name}.log", *command, **settings) as process:
            await measure_throughput(bench.broker, written, events // 10, [process])
            stacks = bench.folder / "stacks.txt"
            await asyncio.to_thread(_sample, process.pid, stacks)
        return [
            Result(f"{name}: {part}", share, "share")
            for part, share in shares(stacks.read_text()).items()
        ]


def _sample(pid: int, stacks: Path) -> None:
    spy = Path(sys.executable).with_name("py-spy")
    command = [
        str(spy),
        "record",
        "--pid",
        str(pid),
        "--duration",
        str(SECONDS),
        "--rate",
        "200",
        "--format",
        "raw",
        "--full-filenames",
    ]
    subprocess.run([*command, "--output", str(stacks)], check=True, capture_output=True)


def main() -> None:
    report("profile", [result for name in EVENTS for result in asyncio.run(profile(name))])


if __name__ == "__main__":
    main()
