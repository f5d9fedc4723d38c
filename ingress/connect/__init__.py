"""Getting our own access to Syncaroo: an admin is sent to its consent page (/connect) and comes back (/confirm)."""
