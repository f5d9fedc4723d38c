"""We as Syncaroo's OAuth provider: consent pages, codes and tokens, check_connection (CONTRACT §3.1-3.3)."""
