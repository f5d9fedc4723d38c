"""The store: SQLite or PostgreSQL, one code for both. Rows never leave this package and the stages' `store.py`."""
