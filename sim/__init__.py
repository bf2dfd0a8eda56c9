"""Cycle-accurate simulation of the accelerator, compared word by word with the golden model."""
