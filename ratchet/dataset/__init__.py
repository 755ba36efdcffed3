"""`ratchet dataset`: find batches, show their reports, export their data and verify them.

Snapshots are only read here. The dataset service writes them (`services.dataset.snapshot`).
"""
