import numpy as np
import pytest

from model.errors import UserError
from model.network import NETWORKS, Conv, Linear, Network
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


def test_fully_connected_layers_keep_one_pair_of_alpha():
    network = Network("n", (3, 6, 6), (Conv("a", 3, 5, 3), Linear("b", 80, 7), Linear("c", 7, 3)))
    _, second, third = synthetic_network(network, alpha=4, weight_bits=8).layers
    assert second.weight.shape == (7, 80) and third.weight.shape == (3, 7)
    pairs = second.weight.reshape(7, 10, 4, 2).any(axis=3).sum(axis=2)
    assert pairs.max() == 1 and pairs.mean() > 0.9


def test_fully_connected_layers_may_be_sparser():
    network = Network("n", (4, 6, 6), (Conv("a", 4, 5, 3), Linear("b", 80, 7)))
    first, second = synthetic_network(network, alpha=2, dense_alpha=8, weight_bits=8).layers
    assert (first.pattern, second.pattern) == ("channel 1:2", "channel 1:8")
    assert second.weight.reshape(7, 5, 8, 2).any(axis=3).sum(axis=2).max() == 1
    assert first.weight.any(axis=-1).mean() > 0.4
    with pytest.raises(UserError, match="alpha must be 1 to 256, not 0"):
        synthetic_network(network, dense_alpha=0)


def test_strided_and_grouped_layers_have_the_words_of_their_phases_and_parts():
    chain = NETWORKS["alexnet-grouped"]
    part = Network("part", chain.input_shape, chain.layers[:2])
    first, second = synthetic_network(part, weight_bits=8).layers
    assert first.weight.shape == (96, 48, 32, 2) and second.weight.shape == (256, 48, 32, 2)
