"""Read models of the topics that the trainer consumes besides `training.batches`.

Nothing here publishes, or decides about a run.
"""
