"""Measurements and computed comparisons behind docs/results.md: ``python -m sim.benchmark``."""
