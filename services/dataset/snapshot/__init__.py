"""Snapshots of closed batches in the object store: data files, report, manifest, withdrawal marks.

Which examples a batch holds is decided in `services.dataset.ledger`, not here.
"""
