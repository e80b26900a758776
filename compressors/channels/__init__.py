"""Channels that messages cross, the stage behind the quantiser: one file each, found by its name."""
