"""What flows and what waits, in numbers: read from the store for `/metrics` and the console."""
