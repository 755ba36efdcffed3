"""Alembic migrations, oldest first; `versions/` and its packages have one module for each."""
