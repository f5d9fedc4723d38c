"""Answers in, listings brought to the truth, one event per difference out."""
