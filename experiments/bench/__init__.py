"""Speed, as ratios to what a user would write by hand: `python -m experiments.bench [CASE ...] --json FILE`."""
