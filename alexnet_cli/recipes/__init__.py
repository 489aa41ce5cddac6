"""Recipes: every hyperparameter of a network and its training, with its source.

Also the named recipes, their variants, the check of a network's structure and the comparison with
the paper. May import `system`.
"""
