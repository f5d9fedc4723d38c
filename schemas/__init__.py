"""What flows between processes (messages, events) and what the store keeps (tables)."""
