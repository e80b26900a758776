"""What a run sends: prices of steps, moves of models, and the budget that limits both."""
