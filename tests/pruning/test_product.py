"""The fused spectral product: the same function and gradients as a chain of torch operations."""

import pytest
import torch

from model import halfplane
from model.network import Conv
from pruning.product import spectral_product
from pruning.tables import tiling_of, transforms


def _chain(x, weight, real_word, analysis, synthesis, plan):
    """The same by torch's own differentiable operations, in complex numbers."""
    (top, bottom), (left, right) = plan.pads
    x = torch.nn.functional.pad(x, (left, right, top, bottom))
    patches = x.unfold(2, plan.tile, plan.step).unfold(3, plan.tile, plan.step)
    spectra = (patches.flatten(4) @ analysis).unflatten(4, (-1, 2))
    re, im = torch.einsum("bcyxfp,ncfq->pqbnyxf", spectra, weight).flatten(0, 1)[[0, 3]]
    reim, imre = torch.einsum("bcyxfp,ncfq->pqbnyxf", spectra, weight).flatten(0, 1)[[1, 2]]
    sums = torch.stack([torch.where(real_word, re, re - im),
                        torch.where(real_word, im, reim + imre)], -1)
    tiles = (sums.flatten(4) @ synthesis).unflatten(4, (plan.tile, plan.tile))
    valid = tiles[..., plan.kernel - 1 :, plan.kernel - 1 :]
    full = valid.permute(0, 1, 2, 4, 3, 5).flatten(2, 3).flatten(3, 4)
    return full[:, :, : plan.out_height, : plan.out_width]


CASES = [
    (3, 1, 14, 11), (3, 1, 4, 4), (3, 0, 8, 8), (5, 2, 9, 13),
    (7, 3, 5, 8), (1, 0, 9, 9), (8, 0, 8, 9),
]


@pytest.mark.parametrize(("kernel", "padding", "height", "width"), CASES)
def test_same_function_and_gradients(kernel, padding, height, width):
    """Forward and both gradients agree with the chain in double precision, whatever the overlap."""
    generator = torch.Generator().manual_seed(kernel)
    plan = tiling_of(Conv("c", 3, 5, kernel, padding=padding), height, width, 8)
    tables = transforms(8)
    real_word = torch.tensor(halfplane.is_real_word(8))
    x = torch.randn((2, 3, height, width), generator=generator, dtype=torch.float64)
    weight = torch.randn((5, 3, 32, 2), generator=generator, dtype=torch.float64)
    results = []
    for operation in (
        _chain, lambda *arguments: spectral_product(*arguments, torch.float64)
    ):
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        y = operation(*inputs, real_word, *tables, plan)
        assert y.shape == (2, 5, plan.out_height, plan.out_width)
        (y * torch.arange(y.numel()).view(y.shape).cos()).sum().backward()
        results.append((y.detach(), inputs[0].grad, inputs[1].grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_only_where_asked():
    """A first layer needs no gradient of its input, a frozen one none of its weight."""
    plan = tiling_of(Conv("c", 2, 2, 3, padding=1), 6, 6, 8)
    real_word = torch.tensor(halfplane.is_real_word(8))
    for wants in ((True, False), (False, True)):
        x = torch.randn((1, 2, 6, 6), dtype=torch.float64, requires_grad=wants[0])
        weight = torch.randn((2, 2, 32, 2), dtype=torch.float64, requires_grad=wants[1])
        spectral_product(x, weight, real_word, *transforms(8), plan, torch.float64).sum().backward()
        assert (x.grad is not None, weight.grad is not None) == wants


def test_lower_precision():
    """bfloat16 products stay within a few of its steps, and the gradients keep their types."""
    generator = torch.Generator().manual_seed(1)
    plan = tiling_of(Conv("c", 16, 8, 3, padding=1), 12, 12, 8)
    real_word = torch.tensor(halfplane.is_real_word(8))
    tables = [table.float() for table in transforms(8)]
    x = torch.randn((4, 16, 12, 12), generator=generator, requires_grad=True)
    weight = torch.randn((8, 16, 32, 2), generator=generator, requires_grad=True)
    exact = spectral_product(x, weight, real_word, *tables, plan, torch.float32)
    low = spectral_product(x, weight, real_word, *tables, plan, torch.bfloat16)
    assert low.dtype == torch.bfloat16
    assert (low - exact).abs().max() < 0.03 * exact.abs().max()
    low.float().square().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


@pytest.mark.parametrize("size", [0, 3])
def test_backward_in_autocast_keeps_the_types_of_the_forward_pass(size):
    """Also of no images at all."""
    plan = tiling_of(Conv("c", 2, 2, 3, padding=1), 6, 6, 8)
    x = torch.randn((size, 2, 6, 6), requires_grad=True)
    weight = torch.randn((2, 2, 32, 2), requires_grad=True)
    real_word = torch.tensor(halfplane.is_real_word(8))
    gradients = []
    for enabled in (False, True):
        y = spectral_product(x, weight, real_word, *transforms(8), plan, torch.float32)
        assert y.shape == (size, 2, 6, 6)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            gradients.append(torch.autograd.grad(y.square().sum(), (x, weight)))
    for plain, cast in zip(*gradients, strict=True):
        assert torch.equal(plain, cast)
