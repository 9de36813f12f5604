"""Data model: scene sets, cameras and poses, scenes, layouts, origins, manifests, and JPEG frames.

Only manifests and origins access files.
"""
