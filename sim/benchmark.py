"""Measure and compare: ``python -m sim.benchmark PART`` writes JSON (and plots) to docs/results.

nngen: single layers of VGG16 on config vgg16-144, in RTL, beside NNgen's engine.
layers: roofline, cycles and utilisation of the simulated VGG16 run on u200.
flows: external bytes of that run beside fixed and flexible dataflows.
tiles: K = 8 beside K = 16, computed.
scaling: whole VGG16 against lanes and bandwidth, estimated, or in RTL with --simulate.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.config import AcceleratorConfig, load_config
from model.errors import Parser, UserError, command
from model.files import read_json, write_output
from model.netfile import load_network
from model.network import NETWORKS, QuantisedNetwork
from model.synthetic import synthetic_network
from sim.inputs import Photograph, photograph_files

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[1]
#: Simulated run of VGG16 that `layers` and `flows` read.
RUN = "u200-vgg16-channel.json"


def _write(folder: Path, name: str, content: Any) -> None:
    """Write a JSON file of the results folder."""
    write_output(folder / name, json.dumps(content, indent=1) + "\n")
    print(f"{folder / name} written")


def _numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(item) for item in text.split(",")]
    except ValueError as error:
        raise UserError(f"{text!r} is no list of numbers like 64,96") from error


def _network(args: argparse.Namespace, config: AcceleratorConfig) -> QuantisedNetwork:
    """VGG16 from a file, or synthetic."""
    if args.network is None:
        return synthetic_network(NETWORKS["vgg16"], weight_bits=config.weight_bits)
    network = load_network(args.network)
    if network.network.name != "vgg16":
        raise UserError(f"{args.network} is a {network.network.name}, not a vgg16")
    return network


def _photograph(args: argparse.Namespace, network: QuantisedNetwork) -> Photograph:
    """Load the input image."""
    paths = [args.image] if args.image else []
    return photograph_files(paths, network.network.input_shape, signed=network.in_signed)[0]


def _nngen(args: argparse.Namespace) -> None:
    from sim.bench import nngen

    config = load_config(args.config or "vgg16-144")
    names = args.only.split(",") if args.only else nngen.LAYERS
    known = {layer.name for layer in NETWORKS["vgg16"].layers}
    if unknown := set(names) - known:       # before the minutes that its weights take
        raise UserError(f"--only: vgg16 has no layer {min(unknown)!r}")
    network = _network(args, config)
    photograph = _photograph(args, network)
    result = nngen.measure(network, photograph.pixels, config, names,
                           lambda text: print(text, flush=True))
    for row in result["layers"]:
        print(f"{row['name']}, {row['bytes_per_cycle']:g} bytes a cycle: {row['cycles']} cycles, "
              f"{row['read_bytes']} bytes read, {row['write_bytes']} written, "
              f"{row['words_compared']} words equal")
    _write(args.results, "nngen.json", result | {"image": photograph.name})


def _scaling(args: argparse.Namespace) -> None:
    from sim.bench import plots, scaling

    config = load_config(args.config or "u200")
    bandwidths = _numbers(args.bandwidth)
    network = _network(args, config)
    known = read_json(args.results / "scaling.json") or {"estimated": [], "simulated": []}
    known |= {"config": config.name, "clock_hz": config.clock_hz,
              "pattern": ", ".join(dict.fromkeys(data.pattern for data in network.layers))}

    def tell(text: str) -> None:
        print(text, flush=True)

    if args.simulate:
        photograph = _photograph(args, network)
        known["image"] = photograph.name
        for point in scaling.simulate(network, photograph.pixels, config,
                                      args.tile_lanes or config.tile_lanes, bandwidths, tell):
            tell(f"{point['lanes']} lanes, {point['bytes_per_cycle']:g} bytes a cycle: "
                 f"{point['cycles']} cycles (estimate {point['estimated_cycles']}), "
                 f"{point['words_compared']} words equal")
            # Hours of simulation: each point is kept as soon as it is there.
            known["simulated"] = scaling.merge(known["simulated"], [point])
            _write(args.results, "scaling.json", known)
    else:
        known["estimated"] = scaling.curve(network, config, scaling.TILE_LANES,
                                           scaling.BANDWIDTHS, tell)
        _write(args.results, "scaling.json", known)
    plots.lanes(args.results / "scaling-lanes.png", known, (256, 96))
    plots.bandwidth(args.results / "scaling-bandwidth.png", known,
                    [config.tile_lanes * config.kernel_lanes])


def _run(args: argparse.Namespace) -> dict[str, Any]:
    """Read the simulated run of VGG16 on u200."""
    run = read_json(args.results / RUN)
    if run is None:
        raise UserError(f"{args.results / RUN} does not exist: python -m sim.run vgg16 --json "
                        f"docs/results/{RUN}")
    return run


def _layers(args: argparse.Namespace) -> None:
    from sim.bench import layers, plots

    run = _run(args)
    result = layers.roofline(run, load_config(args.config or run["config"]))
    for point in result["layers"]:
        print(f"{point['name']:10}{point['products_per_cycle']:8.1f} products a cycle"
              f"{point['intensity']:10.1f} a byte: {point['bound']}, {point['bound_96']} at "
              f"{layers.CHANNEL_BYTES} bytes a cycle")
    _write(args.results, "roofline.json", result)
    plots.cycles(args.results / "cycles.png", run)
    plots.roofline(args.results / "roofline.png", result)


def _flows(args: argparse.Namespace) -> None:
    from sim.bench import flows, plots

    run = _run(args)
    result = flows.compare(run, load_config(args.config or run["config"]))
    for group in result["groups"]:
        print(group["title"] + ": " + ", ".join(
            f"{name} {sum(sizes) / 1e6:.1f} MB" for name, sizes in group["flows"].items())
            + f"; the choice saves {100 * group['saved_by_choice']:.1f} %, {result['config']} "
            f"{100 * group['saved_by_run']:.1f} %")
    _write(args.results, "flows.json", result)
    plots.bytes_per_flow(args.results / "flows.png", result)


def _tiles(args: argparse.Namespace) -> None:
    from sim.bench import plots, tiles

    result = tiles.compare(load_config(args.config or "u200"))
    for layer in result["layers"]:
        print(f"{layer['name']:10}" + "".join(
            f"K = {size}: {layer[size]['tiles']:5} tiles, {layer[size]['kernel_bytes']:9} bytes, "
            f"{layer[size]['cycles']:7} cycles, {layer[size]['cycles_96']:7} at 96 bytes    "
            for size in result["fft"]))
    _write(args.results, "tiles.json", result)
    plots.tiles(args.results / "tiles.png", result)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "nngen": _nngen, "scaling": _scaling, "layers": _layers, "flows": _flows,
    "tiles": _tiles,
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run one part."""
    parser = Parser(prog="python -m sim.benchmark", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(PARTS))
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", metavar="DIR",
                        help="where to write (default: docs/results)")
    parser.add_argument("--network", metavar="FILE",
                        help="pruned VGG16 (default: synthetic weights)")
    parser.add_argument("--image", metavar="FILE", help="photograph (default: a synthetic one)")
    parser.add_argument("--config", metavar="NAME|FILE", help="accelerator to run instead")
    parser.add_argument("--only", metavar="LAYER,LAYER,...", help="nngen: only these layers")
    parser.add_argument("--simulate", action="store_true",
                        help="scaling: run RTL points instead of estimating the curves")
    parser.add_argument("--tile-lanes", type=int, metavar="N", help="scaling: P' to simulate")
    parser.add_argument("--bandwidth", default="256", metavar="B,B,...",
                        help="scaling: bytes per cycle to simulate (default: 256)")
    args = parser.parse_args(argv)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    if args.part != "nngen":
        from sim.bench import plots

        plots.require()
    PARTS[args.part](args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
