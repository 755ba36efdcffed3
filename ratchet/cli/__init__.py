"""The commands of `ratchet`, one module per group: arguments and output only. The work of a command
belongs to the package that it calls.
"""
