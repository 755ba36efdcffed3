"""Training and evaluation of an adapter on a loaded base: recipe, losses, checkpoints, scoring and
generation. Selection of data, processes and events do not belong here.
"""
