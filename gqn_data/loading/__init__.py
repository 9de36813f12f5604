"""What the loader is made of: the scenes and views of a batch, its frames, its workers and the memory they share.

No torch here, it is imported in `gqn_data.loader` alone. Datasets in a store are brought near in `caching`.
Floor: above `dataset`, `caching` and `workers`, below `loader`. Imports those three, `order`, `views` and `images`.
"""
