"""Pictures of what a model predicts: grids, walks through a scene, video, learning curves."""
