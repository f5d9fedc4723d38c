"""The operator's view of the rows, by resource, and the few changes that an operator makes."""
