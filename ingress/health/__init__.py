"""What tells others how this process is: alive, ready, and in numbers (CONTRACT §3.7)."""
