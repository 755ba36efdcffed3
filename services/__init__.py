"""The four services, in the order of the flow: feedback, dataset, trainer, registry. None imports
another.
"""
