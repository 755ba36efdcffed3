"""The gate: evaluation sets, metrics, confidence bounds, and the decision about a candidate.

No Kafka and no training: models are queried through a model session.
"""
