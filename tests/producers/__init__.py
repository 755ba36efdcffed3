"""Producers that are not ours: librdkafka (kcat) and franz-go, compression, transactions, refused
records, and the formats of other tools.
"""
