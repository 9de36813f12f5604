"""What a training is made of: one step with its noise and schedules, ranks, device, figures, a trace, being stopped.

How they make the course of a training is in `gqn_model.training`; what is kept of it is in `checkpointing`.
Floor: above `config`, `inputs` and `model`, below `training`. Imports those three and `network`.
"""
