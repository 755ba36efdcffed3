"""One run, from its batch to its outcome event: steps, progress, hand-off between workers.

The decision about a candidate is in `gate`, training itself in `training`.
"""
