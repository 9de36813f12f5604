"""Source files: the raw folders that hold them, and what lies where in a file that we did not write.

Their records are framed in `gqn_data.tfrecords`; where they come from is in `origin`; how they come is in `fetching`.
Floor: above `manifest`, `layout` and `tfrecords`, below `formats`. Imports those, `origin`, `storage` and `stores`.
"""
