"""The steps that a database has come by, oldest first; `versions/` holds one module for each."""
