"""Measurements, each of them a ratio of two things timed in one run."""
