"""Small files the project ships: pruned quantised networks and some MNIST test digits."""
