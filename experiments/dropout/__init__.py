"""What it costs when clients are away: `python -m experiments.dropout`."""
