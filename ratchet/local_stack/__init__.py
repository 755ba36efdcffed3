"""The stack on one machine: an embedded Kafka, serving and the four services as supervised
processes.

For development and the demo; deployments elsewhere belong to `deploy/`.
"""
