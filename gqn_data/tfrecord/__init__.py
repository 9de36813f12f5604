"""TFRecord files: record framing with checksums, and the wire format of `tf.train.Example`."""
