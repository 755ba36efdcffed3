"""Feedback from Python: `python examples/producer.py [BROKER]` against a running `ratchet up`."""

import sys

from ratchet_client import Client

broker = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9092"
with Client(bootstrap_servers=broker) as ratchet:
    event_id = ratchet.record_feedback(
        model="support",
        input="The kettle is late.",
        output="So what?",
        feedback_type="thumbs_down",
        user_id="agent-01",
    )
    print(event_id)
