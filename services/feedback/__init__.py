"""The feedback service: redacts and scores raw feedback, and accepts feedback over HTTP.

No HTTP for operators and no training data: those belong to the registry and the dataset service.
"""
