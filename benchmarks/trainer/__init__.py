"""Training benchmarks: implementations to compare, their tasks and the time from a batch to its
outcome.
"""
