"""What was missed while the broker or the ingress was away: remembered, and made good by resyncs (CONTRACT §5.8)."""
