"""The clients' side of a run: Flower's ClientApp, and the processes that run clients."""
