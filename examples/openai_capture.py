"""Feedback on an answer of any OpenAI-compatible server, here that of a running `ratchet up`:
`python examples/openai_capture.py [SERVER [BROKER]]`.

The application adds the call of `capture`; feedback then refers to an answer by its id.
"""

import sys

from openai import OpenAI

from ratchet_client import Client, capture

server, broker = (
    *sys.argv[1:],
    *("http://127.0.0.1:8081/v1", "127.0.0.1:9092")[len(sys.argv) - 1 :],
)
with Client(bootstrap_servers=broker) as ratchet:
    client = capture(OpenAI(base_url=server, api_key="none"), ratchet)
    answer = client.chat.completions.create(
        model="support", messages=[{"role": "user", "content": "The kettle is late."}]
    )
    print(answer.choices[0].message.content)
    response_id = answer.ratchet_response_id  # type: ignore[attr-defined]  # added by capture
    print(
        ratchet.record_feedback(
            response_id=response_id, feedback_type="thumbs_up", user_id="agent-01"
        )
    )
