"""From a checked configuration to the moving parts of an experiment, and what they cost."""

from flsplit.assembly.building import Assembly, assembly_for, host_from_json, use_threads
from flsplit.assembly.costs import Costs
from flsplit.assembly.plan import Plan

__all__ = ["Assembly", "Costs", "Plan", "assembly_for", "host_from_json", "use_threads"]
