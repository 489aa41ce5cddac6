"""The Python API: `split`, `train`, `resume`, `load`, and the objects that they return.

`import alexnet_cli` exports these names, and the commands call exactly these functions. This is the
only package that uses both `training` and `inference`; it may import everything but `cli`. It
prints nothing, and starts TensorFlow only when a function needs it.
"""
