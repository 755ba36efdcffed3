"""The trainer service: turns a batch of examples into a candidate, and the gate's verdict into an
event. Everything that only the trainer needs belongs here; contracts and clients are in `shared`.
"""

import logging

# Importing it logs an error about a kernel that is missing from the hub and that is not needed.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
