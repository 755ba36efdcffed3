"""Alembic migrations, oldest first; `versions/` has one module for each."""
