"""What the operating system and other libraries need: atomic files, locks, worker pools, memory, signals.

Knows nothing of images or networks. May import `errors` only.
"""
