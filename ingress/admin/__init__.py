"""The operator's API under `/admin/v1` (CONTRACT §3.8): ours alone, Syncaroo never sees it."""
