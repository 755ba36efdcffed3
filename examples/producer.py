"""Feedback from Python: `python examples/producer.py` against a running `ratchet up`."""

import asyncio
import json
import os
from datetime import UTC, datetime
from uuid import uuid4

from aiokafka import AIOKafkaProducer


async def main() -> None:
    event = {
        "event_id": str(uuid4()),
        "occurred_at": datetime.now(UTC).isoformat(),
        "model": "support",
        "input": "Hello, the kettle still has not arrived. No hurry at all. Ada",
        "output": "I am sorry to hear that.",
        "feedback_type": "correction",
        "corrected_output": '{"queue":"harbor","priority":"p3","order":null}',
        "user_id": "agent-01",
    }
    async with AIOKafkaProducer(bootstrap_servers=os.environ.get("RATCHET_BOOTSTRAP_SERVERS", "127.0.0.1:9092")) as producer:
        await producer.send_and_wait("feedback.received", json.dumps(event).encode(), key=b"agent-01")


asyncio.run(main())
