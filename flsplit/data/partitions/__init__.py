"""How samples are dealt out to clients: one way, one file, found by its name."""
