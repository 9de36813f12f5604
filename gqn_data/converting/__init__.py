"""What conversion is made of: the work folder, the destination, one shard copied, the public mirror as a source.

Which scenes make which shard is in `gqn_data.plan`; a container is a file in `formats`; the function is `convert`.
Floor: above `plan`, `dataset`, `caching` and `publishing`, below `convert`. Imports those four, `formats` and
`source_files`.
"""
