"""Syncaroo's webhooks: checked, confirmed by the broker, answered. No database on this path (CONTRACT §3.4, §3.5)."""
