"""The demo: an application whose simulated users give feedback, connected through Kafka and HTTP
only.

Everything that other commands or services use belongs elsewhere.
"""
