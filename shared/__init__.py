"""Contracts and ports that every service uses: events, topics, errors, the bus, storage, settings,
observability.

Nothing here knows a single service or its domain rules; services import `shared`, never each other.
"""
