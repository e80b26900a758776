"""What a user may ask for: the typed keys, what was typed, and clients that differ."""
