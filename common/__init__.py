"""Machinery that two or more packages use; nothing here knows a stage."""
