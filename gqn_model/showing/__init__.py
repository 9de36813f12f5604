"""What is shown of a network: grids of predictions, walks through a scene, moving pictures, the curves of runs.

Of which scenes predictions are made is in `gqn_model.predictions`; the picture of an evaluation is in `evaluating`.
Floor: above `inputs` and `model`, below `training` and `predictions`. Imports those two, `loggers` and `network`.
"""
