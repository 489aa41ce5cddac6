"""Image data: decode, check and split images, keep them decoded, and cut the crops for the network.

Needs TensorFlow only to write TFRecord shards. May import `recipes` and `system`.
"""
