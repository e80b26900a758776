"""Studies with many clients, which the paper leaves open: `python -m experiments.study NAME`."""
