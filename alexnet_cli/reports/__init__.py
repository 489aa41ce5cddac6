"""Plots drawn by matplotlib, the figures of the paper, and the HTML report.

May import `inference`, `training` and everything below them; never `api` or `cli`. Matplotlib and
Jinja2 are imported only when something is drawn.
"""
