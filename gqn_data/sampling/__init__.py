"""Order of scenes and choice of views, as pure functions of (seed, epoch, position)."""
