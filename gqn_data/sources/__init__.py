"""Source files written by other programs: raw folders of TFRecords, the numpy mirror, gzip with random access."""
