"""What only waits."""
