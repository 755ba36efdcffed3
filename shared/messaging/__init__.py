"""Messages without a broker: topics, the CloudEvents codec, dead letters, and the bus port with its
consume loop.

Kafka clients are in `shared.kafka`.
"""
