"""How things get from one process of a run to another: tasks, models, steps of a central host."""
