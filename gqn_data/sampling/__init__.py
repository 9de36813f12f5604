"""Shuffling of scenes, choice of views and batching, as pure functions of (seed, epoch, position)."""
