"""Scenes of one's own, written from Python into a dataset: `gqn_data.SceneWriter`, its checks and its spool.

How a shard is written is in `formats`, and how shards become a dataset in `converting`.
Floor: above `converting` and `plan`, below nothing but `gqn_data` itself. Imports those two, `formats` and `scene`.
"""
