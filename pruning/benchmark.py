"""Speed and memory of training with spectral layers: ``python -m pruning.benchmark``.

Every convolution of a network, forward and backward, as `pruning.layers.SpectralConv`, as
``torch.nn.Conv2d`` and as a convolution by ``torch.fft`` over the whole map; then steps of training
with and without ADMM.  On a CPU times are CPU seconds of the process, so other work on the machine
disturbs them less, and peak memory is what the process' resident set grows by in a step (Linux).
"""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from model.errors import Parser, UserError, command
from model.files import check_target, write_output
from model.network import NETWORKS, Conv
from pruning.recipe import PRESETS, Recipe
from pruning.threads import choose_device, use_threads

__all__ = ["main"]


def _clock(device: str) -> Callable[[], float]:
    """Seconds of work done."""
    if device == "cpu":
        return time.process_time

    import torch

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def _resident(entry: str) -> int:
    """Bytes of the process' memory: `entry` VmRSS, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{entry}:"))


def _cpu_peak(work: Callable[[], object]) -> float | None:
    """MiB by which the resident set peaks while `work` runs; None where Linux does not tell."""
    try:
        ctypes.CDLL(None).malloc_trim(0)                    # free memory back to the system
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")       # proc(5): the peak starts anew
        work()
        return (_resident("VmHWM") - before) / 2**20
    except (OSError, AttributeError):
        return None


def _measure(work: Callable[[], object], device: str, repeats: int) -> dict[str, float]:
    """Median milliseconds of `work` and the most MiB it held."""
    import torch

    clock = _clock(device)
    work()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    peak = None
    if device == "cpu":
        peak = _cpu_peak(work)
    else:
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    result = {"ms": round(1000 * median(times), 3)}
    if peak is not None:
        result["peak_mib"] = round(peak, 1)
    return result


def _autocast(device: str, precision: str) -> AbstractContextManager:
    """Autocast to bfloat16 if `precision` asks for it."""
    import torch

    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16,
                          enabled=precision == "bfloat16")


def measure_layers(
    network: str, batch: int, device: str, repeats: int, precision: str = "float32"
) -> list[dict]:
    """Time every convolution of a network in the three forms."""
    import torch
    from torch import nn

    from pruning.fftconv import FFTConv
    from pruning.spectral import convert

    net = NETWORKS[network]
    rows = []
    for layer, shape in zip(net.layers, net.shapes(), strict=False):
        if not isinstance(layer, Conv):
            continue
        dense = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel,
                          padding=layer.edges[:2])
        forms = {"spectral": convert(dense, layer.name), "conv2d": dense, "fft": FFTConv(dense)}
        x = torch.randn(batch, *shape, device=device, requires_grad=True)
        row: dict[str, Any] = {"layer": layer.name, "input": list(shape)}
        for name, form in forms.items():
            form.to(device)

            def step(form: nn.Module = form, x: torch.Tensor = x) -> None:
                with _autocast(device, precision):
                    y = form(x)
                y.float().sum().backward()

            row[name] = _measure(step, device, repeats)
        rows.append(row)
    return rows


def measure_admm(
    network: str, batch: int, device: str, repeats: int, precision: str = "float32"
) -> dict[str, float]:
    """Milliseconds of a training step, of the penalty on top and of an update; their share."""
    import torch
    from torch.nn import functional

    from pruning.admm import ADMMPruner, parameter_groups
    from pruning.nets import SpatialNet, SpectralNet

    recipe = Recipe.preset(network)
    model = SpectralNet(recipe.net, SpatialNet(recipe.net, recipe.batch_norm)).to(device)
    pruner = ADMMPruner(model.layers, layers=recipe.patterns())
    adam = torch.optim.Adam(parameter_groups(model, 1e-4))
    x = torch.rand(batch, *recipe.net.input_shape, device=device)
    labels = torch.arange(batch, device=device) % 10

    def step(penalty: bool) -> None:
        with _autocast(device, precision):
            loss = functional.cross_entropy(model(x), labels)
        if penalty:
            loss = loss + pruner.penalty()
        adam.zero_grad()
        loss.backward()
        adam.step()

    # In turns, so that what else the machine does meets both alike.
    rounds = [[_measure(partial(step, penalty), device, 1)["ms"] for penalty in (False, True)]
              for _ in range(repeats)]
    plain, full = (median(times) for times in zip(*rounds, strict=True))
    update = _measure(pruner.update, device, max(1, repeats // 2))["ms"]
    steps = 50_000 // batch
    share = (steps * (full - plain) + recipe.updates * update) / (steps * plain)
    return {"step_ms": plain, "step_with_penalty_ms": full, "update_ms": update,
            "updates_per_epoch": recipe.updates, "steps_per_epoch": steps,
            "overhead_percent": round(100 * share, 2)}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = Parser(prog="python -m pruning.benchmark", description=__doc__)
    parser.add_argument("network", nargs="?", default="vgg16-cifar-quarter",
                        help=f"{', '.join(PRESETS)} (default %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements (default %(default)s)")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"),
                        help="bfloat16 for autocast (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    args = parser.parse_args(argv)
    check_target(args.json)
    if args.network not in PRESETS:
        raise UserError(f"unknown network {args.network!r}: known are {', '.join(PRESETS)}")
    if args.batch < 1 or args.repeats < 1:
        raise UserError("--batch and --repeats must be at least 1, not "
                        f"{args.batch} and {args.repeats}")
    use_threads(args.threads)
    device = choose_device(args.device)
    import torch

    torch.manual_seed(0)
    layers = measure_layers(args.network, args.batch, device, args.repeats, args.precision)
    print(f"{'layer':10} {'spectral':>9} {'conv2d':>9} {'fft':>9}  ms, forward and backward")
    for row in layers:
        print(f"{row['layer']:10} " + " ".join(
            f"{row[name]['ms']:9.2f}" for name in ("spectral", "conv2d", "fft")))
    totals = {name: sum(row[name]["ms"] for row in layers)
              for name in ("spectral", "conv2d", "fft")}
    ratios = {name: round(totals["spectral"] / totals[name], 3) for name in ("conv2d", "fft")}
    admm = measure_admm(args.network, args.batch, device, args.repeats, args.precision)
    print(f"all layers: {ratios['conv2d']:.2f} times conv2d, {ratios['fft']:.2f} times torch.fft; "
          f"ADMM adds {admm['overhead_percent']:.1f} % to an epoch")
    if args.json:
        name = torch.cuda.get_device_name(device) if device != "cpu" else "cpu"
        write_output(args.json, json.dumps({
            "network": args.network, "batch": args.batch, "repeats": args.repeats,
            "device": name, "precision": args.precision,
            "threads": args.threads, "torch": torch.__version__,
            "layers": layers, "total_ms": totals, "ratio": ratios, "admm": admm,
        }, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
