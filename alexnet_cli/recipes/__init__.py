"""Recipes: every hyperparameter of a network and its training, with its source.

Also the named recipes, their variants and the comparison with the paper. May import `system`.
"""
