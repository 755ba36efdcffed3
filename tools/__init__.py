"""Checks of the repository itself, run by `make lint`. Services never import from here."""
