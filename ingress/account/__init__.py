"""`/account`: a user sees and ends their connections to Syncaroo, and signs out (CONTRACT §3.9)."""
