"""What is kept of a network in files: checkpoints, which of them is the best, weights that leave a run.

When a checkpoint is written is decided in `gqn_model.training`; the rest of a run's folder is in `runs`.
Floor: above `config` and `model`, below `batches` and `training`. Imports those two. One way goes up to here:
`GQN.from_run` and `GQN.from_safetensors` in `model`, when they are called.
"""
