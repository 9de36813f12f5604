"""Pictures of predictions: grids, walks through a scene, animations; and learning curves."""
