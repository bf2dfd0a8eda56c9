"""From a torch module to the same module with spectral layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from model.network import Conv, Linear
from pruning.layers import Compressed, CompressedLinear, SpectralConv
from pruning.masks import free_weight

__all__ = ["UnsupportedLayer", "compressed_layers", "convert", "spectralise"]


class UnsupportedLayer(ValueError):
    """A layer that has no spectral form; the message names its path."""


def spectralise(
    module: nn.Module, tile: int = 8, *, skip: Collection[str] = (), example: Tensor | None = None
) -> nn.Module:
    """Swap the convolutions and fully connected layers of a module for compressible ones.

    The module computes the same as before until something is pruned.  Give the optimiser the
    parameters of the returned module: those of the swapped layers are new.

    Parameters
    ----------
    module : Module
        Any module; changed in place.
    tile : int
        Edge K of the transform, even and at least the largest kernel.
    skip : collection of str
        Paths (as in ``named_modules``) of layers, or of modules with all they hold, to leave as
        they are.
    example : Tensor or None
        An input; the module is run on it once, before and after, and the two results are compared.
        Without one, a map too small for its kernel shows at the first forward pass.

    Returns
    -------
    Module
        `module`, or its replacement if it is itself a layer.

    Raises
    ------
    UnsupportedLayer
        Before anything is swapped, if a layer has a stride, groups, a dilation, another padding
        than zeros, no square kernel, is transposed, or is of an unknown kind of convolution; if it
        has hooks or parametrisations, or shares a parameter with another layer.
    ValueError
        `skip` names no layer, or the two results of `example` differ.
    """
    paths = {path for path, _ in module.named_modules()}
    if unknown := sorted(set(skip) - paths):
        raise ValueError(f"skip names no layer of the module: {', '.join(unknown)}")
    before = None if example is None else _run(module, example)
    # A layer used in several places is swapped for one layer in all of them.
    swapped: dict[nn.Module, nn.Module] = {}
    shared = _shared(module)
    for path, layer in module.named_modules():
        if _is_layer(layer) and not any(f"{path}.".startswith(f"{item}.") for item in skip):
            if layer in shared:
                raise UnsupportedLayer(f"layer {path} shares its weight or bias with "
                                       f"{shared[layer]}, whose would then be another: name it in "
                                       "skip")
            swapped[layer] = convert(layer, path or type(layer).__name__, tile)
    for parent in list(module.modules()):
        for name, item in list(parent._modules.items()):
            if item in swapped:
                parent._modules[name] = swapped[item]
    module = swapped.get(module, module)
    if example is not None and before is not None:
        _compare(before, _run(module, example))
    return module


def convert(layer: nn.Module, path: str, tile: int = 8, pool: int = 1) -> Compressed:
    """Compressible layer that computes what `layer` does.

    Parameters
    ----------
    layer : Module
        An ``nn.Conv2d`` or ``nn.Linear``.
    path : str
        Where it is, for messages.
    tile : int
        Edge K of the transform.
    pool : int
        Max pooling the new layer does before it adds its bias.
    """
    if parametrize.is_parametrized(layer):
        raise UnsupportedLayer(f"layer {path} has parametrisations: remove them first "
                               "(torch.nn.utils.parametrize.remove_parametrizations)")
    if type(layer) in (nn.Linear, nn.Conv2d) and any((
        layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks,
        layer._backward_pre_hooks,
    )):
        raise UnsupportedLayer(f"layer {path} has hooks (as of weight_norm or torch's own prune), "
                               "which its new layer would not have: remove them first")
    weight = getattr(layer, "weight", None)
    if isinstance(weight, Tensor) and weight.dtype not in (torch.float32, torch.float64):
        raise UnsupportedLayer(f"layer {path}: weights are {weight.dtype}; keep them in float32 "
                               "and use torch.autocast")
    if type(layer) is nn.Linear:
        dense = Linear(path, layer.in_features, layer.out_features)
        new: Compressed = CompressedLinear(dense, layer.weight, layer.bias)
    elif type(layer) is nn.Conv2d:
        shape = Conv(path, layer.in_channels, layer.out_channels, layer.kernel_size[0],
                     _padding(layer, path, tile), pool=pool)
        new = SpectralConv(shape, tile, layer.weight, layer.bias)
    else:
        raise UnsupportedLayer(f"layer {path}: {type(layer).__name__} has no spectral form; only "
                               "torch.nn.Conv2d and torch.nn.Linear have (or name it in skip)")
    free_weight(new).requires_grad_(layer.weight.requires_grad)
    if new.bias is not None and layer.bias is not None:
        new.bias.requires_grad_(layer.bias.requires_grad)
    return new.train(layer.training)


def compressed_layers(module: nn.Module) -> Iterator[tuple[str, Compressed]]:
    """Path and layer of everything `spectralise` swapped in, in order; each layer once."""
    for path, layer in module.named_modules():
        if isinstance(layer, Compressed):
            yield path, layer


def _is_layer(layer: nn.Module) -> bool:
    """Whether a module is a convolution or a fully connected layer of any kind."""
    return isinstance(layer, (_ConvNd, nn.Linear, nn.Bilinear))


def _shared(module: nn.Module) -> dict[nn.Module, str]:
    """Modules that share a parameter with one of another path, which is named."""
    owners: dict[nn.Parameter, list[tuple[str, nn.Module]]] = {}
    for path, item in module.named_modules():
        for parameter in dict.fromkeys(item._parameters.values()):
            if parameter is not None:
                owners.setdefault(parameter, []).append((path, item))
    return {item: next(other for other, _ in users if other != path)
            for users in owners.values() if len(users) > 1 for path, item in users}


def _padding(layer: nn.Conv2d, path: str, tile: int) -> int:
    """Zeros on every side of a convolution that has a spectral form; raises for any other."""
    size, padding = layer.kernel_size, layer.padding
    complaints: tuple[tuple[bool, str, str], ...] = (
        (layer.stride != (1, 1), f"stride {layer.stride}", "a stride of 1"),
        (layer.groups != 1, f"{layer.groups} groups", "one group"),
        (layer.dilation != (1, 1), f"dilation {layer.dilation}", "no dilation"),
        (layer.padding_mode != "zeros", f"padding mode {layer.padding_mode!r}", "zeros"),
        (size[0] != size[1], f"kernel {size}", "a square kernel"),
        (size[0] > tile, f"kernel {size}", f"a kernel of at most the tile, {tile}"),
    )
    if padding == "valid":
        zeros = 0
    elif padding == "same":
        zeros = (size[0] - 1) // 2
        complaints += ((size[0] % 2 == 0, f"padding 'same' of kernel {size}", "an odd kernel"),)
    else:
        zeros = int(padding[0])
        complaints += (
            (padding[0] != padding[1], f"padding {padding}", "equal padding on all sides"),
            (zeros >= size[0], f"padding {padding}", f"padding below the kernel, {size[0]}"),
        )
    for wrong, what, wanted in complaints:
        if wrong:
            raise UnsupportedLayer(f"layer {path}: {what} has no spectral form, it needs {wanted}; "
                                   "name it in skip to leave it as it is")
    return zeros


def _run(module: nn.Module, example: Tensor) -> Tensor:
    """Output for an example, without a trace in the module's statistics."""
    training = {item: item.training for item in module.modules()}
    module.eval()
    with torch.no_grad():
        result = module(example)
    for item, mode in training.items():
        item.training = mode
    return result


def _compare(before: Tensor, after: Tensor) -> None:
    """Raise unless the swap kept the function."""
    worst = float((before - after).abs().max() / before.abs().max().clamp_min(1e-12))
    if not worst <= 1e-3:
        raise ValueError(f"the spectral module differs from the original by {worst:.2g} of its "
                         "largest output")
