"""Programs that are measured beside ours. Each does the same work in the way of its framework."""
