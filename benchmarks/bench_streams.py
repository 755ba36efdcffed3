"""Throughput of the streams services, against a plain aiokafka loop that does the same work per
event, on one real Apache Kafka in one run.

- `feedback_ratio`, `dataset_ratio`: events a second of the service over those of the plain loop.
  The dataset's plain loop writes one record for each event and no other durable state.
- `cost_many_models_ratio`: seconds per event with 1,000 models and 10,000 pending examples over
  those with one model and none.
- `two_workers_speedup`: events a second of two feedback workers over those of one, with the
  broker's share of a core.
- `restart_ready_seconds`: from starting the dataset service with 10,000 pending examples of 200
  models until it accepts work. The baseline is the same with nothing pending: starting Python and
  joining the group.
"""

import asyncio
import shutil
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.results import Result, report
from benchmarks.streams import restart
from benchmarks.streams.plain_consumer import ENTRIES
from benchmarks.streams.synthetic_feedback import fill, received, scored, write_models
from benchmarks.throughput import Throughput, measure_throughput, python_process, service_command
from ratchet.kafka_admin.topics import apply_topics, wait_for_group_coordinator
from ratchet.local_stack.broker import Broker
from ratchet.local_stack.ports import free_port
from shared.clock import SystemClock
from shared.config.models import load_models
from shared.messaging.topics import DATASET_ENTRIES, FEEDBACK_RECEIVED, FEEDBACK_SCORED, Topic

FOLDER = Path(".ratchet/bench/streams")
FEEDBACK_EVENTS = 20_000
DATASET_EVENTS = 6_000
ROUNDS = 3
PENDING = 10_000
MODELS = 1_000
UNREACHED_BATCH_SIZE = 10_000
"""Batch size that no model here reaches."""


class StreamsBenchmark:
    """A broker with generated records, and the throughput of processes on it."""

    def __init__(self, name: str, models: int = 1, batch_size: int = 50) -> None:
        self.folder = FOLDER / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.models = self.folder / "models"
        self.names = write_models(self.models, models, batch_size)
        self.broker = Broker(self.folder / "kafka", free_port(), free_port(), SystemClock())

    async def __aenter__(self) -> "StreamsBenchmark":
        await asyncio.to_thread(self.broker.start)
        await apply_topics(self.broker.bootstrap_servers)
        await apply_topics(self.broker.bootstrap_servers, [Topic(ENTRIES, "", (), "", (), None, 4)])
        await wait_for_group_coordinator(self.broker.bootstrap_servers)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.broker.stop)

    async def run_plain_consumer(
        self, what: str, group: str, topic: str, events: int
    ) -> Throughput:
        log, brokers = self.folder / "plain.log", self.broker.bootstrap_servers
        with python_process(
            log, "benchmarks.streams.plain_consumer", what, group, brokers, str(self.models)
        ) as loop:
            return await measure_throughput(self.broker, topic, events, [loop])

    async def run_service(
        self, name: str, group: str, topic: str, events: int, workers: int = 1, after: int = 0
    ) -> Throughput:
        with ExitStack() as stack:
            processes = []
            for worker in range(workers):
                command, settings = service_command(
                    name,
                    group,
                    self.broker.bootstrap_servers,
                    self.folder / f"worker{worker}",
                    self.models,
                )
                processes.append(
                    stack.enter_context(
                        python_process(self.folder / f"{name}.log", *command, **settings)
                    )
                )
            return await measure_throughput(self.broker, topic, events, processes, after)


async def bench_feedback() -> list[Result]:
    plain, one, two = [], [], []
    async with StreamsBenchmark("feedback") as bench:
        await fill(
            bench.broker.bootstrap_servers,
            FEEDBACK_RECEIVED,
            received(FEEDBACK_EVENTS, bench.names),
        )
        for number in range(ROUNDS):
            plain.append(
                await bench.run_plain_consumer(
                    "feedback", f"plain-{number}", FEEDBACK_SCORED, FEEDBACK_EVENTS
                )
            )
            one.append(
                await bench.run_service(
                    "feedback", f"one-{number}", FEEDBACK_SCORED, FEEDBACK_EVENTS
                )
            )
            two.append(
                await bench.run_service(
                    "feedback", f"two-{number}", FEEDBACK_SCORED, FEEDBACK_EVENTS, workers=2
                )
            )
    return [
        Result("feedback_ratio", _ratio(one, plain), "share"),
        Result("feedback_events_per_second", _rate(one), "1/s", baseline=_rate(plain)),
        Result("two_workers_speedup", _ratio(two, one), "times"),
        Result("two_workers_events_per_second", _rate(two), "1/s", baseline=_rate(one)),
        Result(
            "two_workers_broker_share", median(measured.broker_share for measured in two), "cores"
        ),
    ]


async def bench_dataset() -> list[Result]:
    plain, service = [], []
    for number in range(ROUNDS):
        async with StreamsBenchmark(f"dataset-{number}") as bench:
            await fill(
                bench.broker.bootstrap_servers,
                FEEDBACK_SCORED,
                scored(DATASET_EVENTS, load_models(bench.models)),
            )
            plain.append(
                await bench.run_plain_consumer("dataset", "plain", ENTRIES, DATASET_EVENTS)
            )
            service.append(
                await bench.run_service("dataset", "service", DATASET_ENTRIES, DATASET_EVENTS)
            )
    return [
        Result("dataset_ratio", _ratio(service, plain), "share"),
        Result("dataset_events_per_second", _rate(service), "1/s", baseline=_rate(plain)),
    ]


async def bench_many_models() -> list[Result]:
    """Compare the cost per event by the number of pending examples. The batches are so large that
    none closes.
    """
    one, many = [], []
    for number in range(ROUNDS):
        async with StreamsBenchmark(f"one-model-{number}", 1, UNREACHED_BATCH_SIZE) as bench:
            await fill(
                bench.broker.bootstrap_servers,
                FEEDBACK_SCORED,
                scored(DATASET_EVENTS, load_models(bench.models)),
            )
            one.append(
                await bench.run_service("dataset", "service", DATASET_ENTRIES, DATASET_EVENTS)
            )
        async with StreamsBenchmark(f"many-models-{number}", MODELS, UNREACHED_BATCH_SIZE) as bench:
            events = PENDING + DATASET_EVENTS
            await fill(
                bench.broker.bootstrap_servers,
                FEEDBACK_SCORED,
                scored(events, load_models(bench.models)),
            )
            many.append(
                await bench.run_service(
                    "dataset", "service", DATASET_ENTRIES, events, after=PENDING
                )
            )
    return [
        Result("cost_many_models_ratio", 1 / _ratio(many, one), "times"),
        Result("many_models_events_per_second", _rate(many), "1/s", baseline=_rate(one)),
    ]


async def bench_restart() -> list[Result]:
    joining, seconds = [], []
    for number in range(ROUNDS):
        async with StreamsBenchmark(f"restart-{number}") as bench:
            brokers = bench.broker.bootstrap_servers
            joining.append(await asyncio.to_thread(restart.measure_restart, brokers, pending=0))
            seconds.append(await asyncio.to_thread(restart.measure_restart, brokers))
    return [Result("restart_ready_seconds", median(seconds), "s", baseline=median(joining))]


def _ratio(measured: list[Throughput], baseline: list[Throughput]) -> float:
    return median(a.rate / b.rate for a, b in zip(measured, baseline, strict=True))


def _rate(of: list[Throughput]) -> float:
    return median(measured.rate for measured in of)


def main() -> None:
    benchmarks = (bench_feedback, bench_dataset, bench_many_models, bench_restart)
    report("streams", [result for benchmark in benchmarks for result in asyncio.run(benchmark())])


if __name__ == "__main__":
    main()
