"""Labelled pairs of near-duplicate and different examples, and measures of similarity on them."""
