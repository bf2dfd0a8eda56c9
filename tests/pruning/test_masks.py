"""Masked and rounded weights."""

import pytest
import torch

from model.network import Conv, Linear
from pruning.layers import CompressedLinear, SpectralConv
from pruning.masks import free_weight, mask_of, masked_weight, set_mask, set_rounding


def conv():
    torch.manual_seed(0)
    return SpectralConv(Conv("conv", 3, 4, 5), 8, torch.randn(4, 3, 5, 5), torch.randn(4))


@pytest.mark.parametrize("bits, limit", [(8, 127), (16, 32767)])
def test_weight_integers_are_symmetric_and_close(bits, limit):
    module = conv()
    with pytest.raises(ValueError, match="not quantised"):
        module.integers()
    free = free_weight(module).detach().clone()
    set_rounding(module, bits)
    integers, scale = module.integers()
    assert integers.abs().flatten(1).amax(1).tolist() == [limit] * 4
    assert torch.equal(integers, integers.round())
    error = integers * scale.view(-1, 1, 1, 1) - free
    assert bool((error.abs() <= 0.51 * scale.view(-1, 1, 1, 1)).all())
    torch.testing.assert_close(module.weight, integers * scale.view(-1, 1, 1, 1))
    module.weight.sum().backward()
    assert torch.equal(free_weight(module).grad, torch.ones_like(free))


def test_masked_weights_get_no_gradient():
    torch.manual_seed(0)
    module = CompressedLinear(Linear("fc", 6, 2), torch.randn(2, 6), torch.zeros(2))
    mask = torch.ones(2, 6)
    mask[:, ::2] = 0
    set_mask(module, mask)
    module(torch.ones(1, 6)).sum().backward()
    gradient = free_weight(module).grad
    assert gradient[:, ::2].abs().sum() == 0 and gradient[:, 1::2].abs().min() > 0


def test_the_mask_comes_before_the_rounding():
    module = conv()
    mask = (torch.rand(4, 3, 32, 1) < 0.5).float().expand(4, 3, 32, 2)
    set_mask(module, mask)
    set_rounding(module, 8)
    integers, scale = module.integers()
    assert bool((integers[mask == 0] == 0).all())
    assert torch.equal(scale, masked_weight(module).abs().flatten(1).amax(1) / 127)
    late = conv()
    set_rounding(late, 8)
    set_mask(late, mask)
    assert torch.equal(late.weight, module.weight)
    set_mask(module, torch.ones_like(mask))
    assert bool((mask_of(module) == 1).all())
    with pytest.raises(ValueError, match=r"a mask of shape \(4, 3\) does not fit"):
        set_mask(module, torch.ones(4, 3))


def test_optimisers_and_hooks_keep_their_parameter():
    module = conv()
    before, calls = free_weight(module), []
    # The node DistributedDataParallel hangs its hooks on.
    node = before.expand_as(before).grad_fn.next_functions[0][0]
    node.register_hook(lambda *_: calls.append(1))
    set_mask(module, torch.ones(4, 3, 32, 2))
    set_rounding(module, 8)
    module.weight.sum().backward()
    assert free_weight(module) is before and calls == [1]
