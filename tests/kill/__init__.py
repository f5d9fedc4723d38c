"""Processes that die where they are told to: `python -m tests.kill.entry ROLE`. The product has no failpoints."""
