"""The trainer."""

import logging

# When it is imported it complains that a kernel of the hub is not there, which nobody asked for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
