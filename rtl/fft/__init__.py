"""Streaming 2-D real FFT and inverse FFT of 8×8 tiles, without multipliers."""
