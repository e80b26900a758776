"""The server's side of a run: its rounds, the verbs of a strategy, averages, evaluation, checkpoints."""
