"""State that an earlier version stored, and the tests that the present one reads it.

`state_before_packages/` was made with `ratchet demo` of the last commit before the modules moved
into packages: a small adapter, one good batch and one poisoned one. It holds every topic's records,
and the state folder without caches (merged models, Kafka's indexes, the host's tags).
"""
