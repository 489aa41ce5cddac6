"""Use of a trained model: evaluate, predict, find the nearest training images, export.

Returns plain data, described in `results`. May import `runs` and everything below it; `training`
and `inference` do not import each other.
"""
