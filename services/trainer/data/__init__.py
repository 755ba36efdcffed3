"""Training data of a run: selection of examples from manifests, assignment to objectives, and
tokenisation. Models and training loops do not belong here.
"""
