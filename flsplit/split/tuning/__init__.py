"""What a side trains: one way, one file, found by its name."""
