"""Dataset service: curates scored feedback into training batches.

Only this service writes snapshots and announces batches. Scoring belongs to `services.feedback`,
training to `services.trainer`; file formats that others read belong to `shared.storage`.
"""

SOURCE = "/ratchet/dataset"
"""CloudEvents source of this service's events."""
