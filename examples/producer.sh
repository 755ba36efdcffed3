#!/bin/sh
# Send feedback from any language, here with kcat: one JSON object per line, after the key and a bar.
# The partitioner is that of Kafka's own clients, so that a user's feedback stays in order across
# producers. The console producer that comes with Kafka does the same with:
# --property parse.key=true --property key.separator='|'
set -eu
now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
id="kcat-$$-$now"
kcat -P -b "${RATCHET_BOOTSTRAP_SERVERS:-127.0.0.1:9092}" -t feedback.received -K '|' -X partitioner=murmur2_random -X acks=all <<END
agent-01|{"event_id": "$id", "occurred_at": "$now", "model": "support", "input": "Hi, one screw of the tent is missing.", "output": "Oh no!", "feedback_type": "thumbs_down", "user_id": "agent-01"}
END
echo "$id"
