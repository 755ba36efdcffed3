"""Secrets with a known shape: the catalogue of shapes, and the finder that looks for them."""
