import numpy as np
import pytest

from model.errors import UserError
from model.network import Conv, Network
from model.synthetic import synthetic_network

FEW = Network("few", (3, 12, 12), (Conv("a", 3, 64, 3, padding=1),))


@pytest.mark.parametrize(("options", "message"), [
    ({"alpha": 0}, "alpha must be 1 to 256, not 0"),
    ({"alpha": -4}, "alpha must be 1 to 256, not -4"),
    ({"alpha": 10**9}, "alpha must be 1 to 256"),
    ({"seed": -1}, "seed must not be negative"),
])
def test_impossible_numbers_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        synthetic_network(FEW, **options)


def test_kernels_that_lose_every_word_are_zero():
    (layer,) = synthetic_network(FEW, alpha=256).layers
    empty = ~layer.weight.any(axis=(1, 2, 3))
    assert empty.any() and not empty.all()
    assert (layer.weight_scale > 0).all()
    assert np.abs(layer.weight[~empty]).max(axis=(1, 2, 3)).tolist() == [32767] * (~empty).sum()
