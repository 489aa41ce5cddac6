"""From files to crops: decode, check and split images, store them decoded, cut what the network sees.

Needs no TensorFlow, but to write TFRecord shards. May import `recipes` and `system`.
"""
