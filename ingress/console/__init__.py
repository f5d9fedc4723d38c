"""`/console`: the page that an operator leaves open (CONTRACT §3.9)."""
