"""TFRecord files: record framing with CRCs, and the wire format of `tf.train.Example`."""
