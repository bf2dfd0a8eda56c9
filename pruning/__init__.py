"""Training: ADMM pruning in the spectral domain and quantisation-aware fine-tuning (PyTorch).

The only package that needs torch, from ``pip install -e '.[prune]'``.  It takes the tiling,
the half-plane packing and the sparsity patterns from `model`, and hands a
`model.network.QuantisedNetwork` back.
"""
