"""The NumPy side: number formats, tiling, compiler and the bit-exact golden model.

Imports NumPy only; `rtl`, `sim` and `pruning` build on it, never the other way round.
"""
