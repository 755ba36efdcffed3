"""`ratchet dataset`: import files; find batches, show their reports, export and verify them.

Snapshots are only read here. The dataset service writes them, those of imported files in a process
of its own (`services.dataset.build`).
"""
