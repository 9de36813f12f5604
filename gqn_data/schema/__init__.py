"""What a scene and a dataset are: the catalogue of scene sets, cameras, layouts, origins, manifests, JPEG headers."""
