"""The operating system and TensorFlow's start: atomic files, locks, worker pools, memory, signals.

Independent of images and networks. May import `errors` only.
"""
