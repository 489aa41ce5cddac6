"""From a recipe to a network: Keras layers and shapes, the same network in NumPy, weights of Caffe.

May import `data`, `recipes` and `system`. Keras and TensorFlow are imported by some modules only.
"""
