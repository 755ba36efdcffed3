"""Kafka adapters: producer, consumers, TLS and SASL, consumer lag, and the Faust application of the
stream services.

The only package besides the services' `app.py` that imports aiokafka or Faust. Ports and the
in-memory implementation are in `shared.messaging`.
"""
