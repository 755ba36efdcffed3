"""State and decisions of one model and shard, as pure functions of the log.

No I/O, clock or client belongs here: the service's handlers gather the input and apply the result.
"""
