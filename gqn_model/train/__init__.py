"""Training: the run, the trainer's loop, one optimisation step, ranks, metrics and schedules."""
