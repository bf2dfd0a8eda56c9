"""What finer weight scales would give: ``python -m pruning.scales RUN/checkpoint.pt --data DIR``.

The hardware has one weight scale per output channel.  Here a finished run's convolution weights
are rounded with other scales, in floating point, and the network is evaluated with its quantised
activations and fully connected layers as they are: ``layer`` (one scale), ``frequency``,
``output`` (the hardware's), ``output x channel`` and ``output x frequency``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from pruning.cifar import load_cifar
from pruning.data import data_directory, load_digits
from pruning.recipe import Recipe
from pruning.threads import use_threads

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["GRANULARITIES", "main", "round_words"]

#: Dimensions of a weight (N, C, F, 2) over which one scale reaches.
GRANULARITIES = {
    "layer": (0, 1, 2, 3), "frequency": (0, 1, 3), "output": (1, 2, 3),
    "output x channel": (2, 3), "output x frequency": (1, 3),
}


def round_words(weight: Tensor, bits: int, reach: Sequence[int]) -> Tensor:
    """Round a weight to symmetric integers times a scale, over each slice's largest value.

    Parameters
    ----------
    weight : Tensor, shape (N, C, F, 2)
        Words.
    bits : int
        Width of the integers.
    reach : sequence of int
        Dimensions that share a scale (`GRANULARITIES`).
    """
    limit = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(tuple(reach), keepdim=True).clamp_min(1e-12) / limit
    return (weight / scale).round().clamp(-limit, limit) * scale


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure every granularity and width."""
    parser = Parser(prog="python -m pruning.scales", description=__doc__)
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="checkpoint.pt of a run")
    parser.add_argument("--data", metavar="DIR", help="folder of the MNIST files")
    parser.add_argument("--bits", default="8,6,5,4", metavar="B,B,...")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    check_target(args.json)
    use_threads(args.threads)
    try:
        widths = [int(text) for text in args.bits.split(",")]
    except ValueError as error:
        raise UserError(f"--bits must be numbers with commas, not {args.bits!r}") from error
    if not all(2 <= bits <= 16 for bits in widths):
        raise UserError(f"--bits must be 2 to 16, not {args.bits}")
    result = _measure(args.checkpoint, data_directory(args.data), widths)
    if args.json:
        write_output(args.json, json.dumps(result, indent=1) + "\n")
    return 0


def _measure(file: Path, directory: Path, widths: Sequence[int]) -> dict:
    """Accuracy and weight SNR of every granularity and width."""
    import torch

    from pruning import checkpoint
    from pruning.batches import samples
    from pruning.layers import SpectralConv
    from pruning.loop import evaluate
    from pruning.masks import free_weight, masked_weight, set_mask, set_rounding
    from pruning.nets import SpatialNet, SpectralNet

    state = checkpoint.load(file, "run")
    with checkpoint.reading(file):
        if state["stage"] != "retrain":
            raise UserError(f"{file} is in the stage {state['stage']}: finish the run first")
        recipe = Recipe(**state["recipe"])
        model = SpectralNet(recipe.net, SpatialNet(recipe.net, recipe.batch_norm))
        for _, module in model.compressed():
            set_mask(module, torch.ones_like(free_weight(module)))
        model.restore_quantisation(recipe.weight_bits)
        model.load_state_dict(state["model"])
    load = load_digits if recipe.net.input_shape[0] == 1 else load_cifar
    test = samples(load(directory, "t10k" if load is load_digits else "test"), recipe.net)
    trained = evaluate(model, test)
    convs = [module for _, module in model.compressed() if isinstance(module, SpectralConv)]
    with torch.no_grad():
        words = [masked_weight(module).clone() for module in convs]
    for module in convs:
        # Fine enough to pass on what is written into the free weight below.
        set_rounding(module, 20)

    def measured(granularity: str, bits: int) -> dict:
        noise = signal = 0.0
        with torch.no_grad():
            for module, weight in zip(convs, words, strict=True):
                rounded = round_words(weight, bits, GRANULARITIES[granularity])
                noise += float(((rounded - weight).square() * module.metric).sum())
                signal += float((weight.square() * module.metric).sum())
                free_weight(module).copy_(rounded)
        return {"scale": granularity, "bits": bits, "accuracy": evaluate(model, test),
                "snr_db": round(10 * log10(signal / max(noise, 1e-30)), 2)}

    unrounded = measured("output", 16)["accuracy"]
    print(f"{recipe.title}: as trained {trained:.2f} %, convolution weights unrounded "
          f"{unrounded:.2f} %")
    rows = []
    for bits in widths:
        for granularity in GRANULARITIES:
            rows.append(measured(granularity, bits))
            print(f"{bits} bits, a scale per {granularity}: {rows[-1]['accuracy']:.2f} %, weights "
                  f"{rows[-1]['snr_db']:.1f} dB", flush=True)
    return {"recipe": recipe.to_dict(), "images": len(test.labels), "trained": trained,
            "unrounded": unrounded, "rows": rows}


if __name__ == "__main__":
    raise SystemExit(main(None))
