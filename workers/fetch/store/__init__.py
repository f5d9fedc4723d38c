"""Targets in the store, by what is done with them: marked, claimed, answered, read again."""
