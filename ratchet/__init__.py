"""The command line tool, the local stack, the demo and embedded serving.

Services belong to `services`, code that several of them use to `shared`.
"""
