"""Files of a run: checkpoints, the best one, exported weights, and loading them."""
