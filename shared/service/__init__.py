"""The frame of a service process: runtime bundle, consume loop, retry policy and exit status.

Nothing that knows one service or one topic belongs here.
"""
