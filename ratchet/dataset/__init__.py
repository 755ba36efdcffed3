"""Batches as an operator looks at them: find one, read its report, take its data elsewhere, check
that it is whole.
"""
