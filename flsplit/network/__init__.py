"""Simulated time and energy: what a device and its link would take for what is computed and sent."""

from flsplit.network.clock import Clock, Spent, Work
from flsplit.network.devices import Device, NetworkConfig
from flsplit.network.flops import Flops

__all__ = ["Clock", "Device", "Flops", "NetworkConfig", "Spent", "Work"]
