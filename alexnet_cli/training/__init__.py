"""Training: start and resume, the loop over steps, the update rule, the devices, several machines.

May import `runs` and everything below it; `training` and `inference` do not import each other.
"""
