"""Hydra configuration groups; `flsplit --help` lists them."""
