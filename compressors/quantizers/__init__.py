"""Quantisers of what crosses, the stage behind the compressor: one file each, found by its name."""
