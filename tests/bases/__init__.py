"""Bases of other kinds than the shipped one: each is trained and served as it was evaluated, or
refused before training. Tiny models with random weights, and tokenizers built here.
"""
