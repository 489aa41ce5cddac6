"""The command line: a module for each command, its tables and the live view of a training run.

A command turns options into one call of the Python API and its result into tables. Nothing imports
this package but `alexnet_cli.__main__`; it may import every other package.
"""
