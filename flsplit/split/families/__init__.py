"""Families of models that can be cut: one file each, found by its name."""

from flsplit.split.families.interface import ClientModel, Family, ServerModel, available, build

__all__ = ["ClientModel", "Family", "ServerModel", "available", "build"]
