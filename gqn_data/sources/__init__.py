"""Source files that other programs wrote: folders of TFRecords, the numpy mirror, gzip with random access."""
