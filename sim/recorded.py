"""Runs recorded in docs/results and what `model.cost` says of them: ``python -m sim.recorded``.

A run's file names network, config, patterns and memory, which is all that the cycles of patterns
``channel n:m`` depend on; networks of the zoo are compiled with their weights. The weights of other
irregular networks are not here: of each of their layers steps and beats are taken from the run,
and spread evenly over its kernel blocks. The command writes today's estimates into the files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from model.compile import CompiledLayer, Outline, Program, compile_network
from model.config import PRESETS, AcceleratorConfig
from model.cost import LayerCost, estimate
from model.descriptor import SELECT_BITS, WINDOW_CODE
from model.errors import Parser, UserError, command
from model.files import read_json, write_output
from model.kernels import KernelBlock
from model.netfile import load_network
from model.network import NETWORKS, Linear, Network
from model.outline import compile_outline, outline
from model.patterns import ChannelPattern, parse
from model.stream import chunk_entries, param_beats

__all__ = ["estimates", "main", "rebuild", "recorded"]

ROOT = Path(__file__).resolve().parents[1]
#: What an irregular layer is compiled as before its steps and beats are put in.
STAND_IN = "channel 1:4"


def recorded(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Files of `sim.run` with figures of layers, of networks and configs that are known."""
    for path in sorted(folder.glob("*.json")):
        run = read_json(path)
        if (isinstance(run, dict) and run.get("network") in NETWORKS
                and run.get("config") in PRESETS and run.get("layers")
                and {"estimated_cycles", "stalls"} <= set(run["layers"][0])):
            yield path, run


def rebuild(run: Mapping[str, Any]) -> Program | Outline:
    """Compile what ran again."""
    network, config = NETWORKS[run["network"]], PRESETS[run["config"]]
    kind, _, alpha = run["pattern"].partition(" ")
    batch = run.get("batch", 1)
    stored = ROOT / "model" / "zoo" / f"{network.name}-{kind}-a{alpha}.npz"
    if stored.exists():
        return compile_network(load_network(stored), config, batch=batch)
    patterns = run.get("patterns") or _patterns(network, run["pattern"])
    regular = {name: isinstance(parse(text), ChannelPattern) for name, text in patterns.items()}
    lowered = outline(network, STAND_IN, config.weight_bits)
    compiled = compile_outline(dataclasses.replace(lowered, layers=tuple(
        dataclasses.replace(layer, pattern=patterns[layer.name] if regular[layer.name]
                            else STAND_IN)
        for layer in lowered.layers
    )), config, batch=batch)
    arriving = config.map_row_beats * compiled.input_region.rows
    return dataclasses.replace(compiled, layers=tuple(
        layer if regular[layer.lowered.name]
        else _spread(config, layer, measured, 0 if index else arriving)
        for index, (layer, measured) in enumerate(zip(compiled.layers, run["layers"], strict=True))
    ))


def _patterns(network: Network, text: str) -> dict[str, str]:
    """Pattern of each layer, from that of the convolutions and perhaps of what follows them."""
    parts = [part if ":" in part else part.replace(" ", " 1:") for part in text.split(", ")]
    if len(parts) > 2:
        raise UserError(f"patterns {text}: the layers' own are not recorded")
    return {layer.name: parts[-1] if isinstance(layer, Linear) else parts[0]
            for layer in network.layers}


def _spread(config: AcceleratorConfig, layer: CompiledLayer, measured: Mapping[str, Any],
            arriving: int) -> CompiledLayer:
    """Layer with the steps and beats of a run; ``arriving`` of the beats are the input's."""
    fields = layer.descriptor
    count, tiles = fields["kernel_blocks"], fields["tile_blocks"]
    code = WINDOW_CODE if config.window > 1 else SELECT_BITS.index(8)
    beats = measured["bytes_read"] // (8 * config.port_words) - arriving
    entries = round(measured["mac_issue_cycles"] / tiles / count)
    head = 1 + param_beats(config)
    each = head + entries * config.row_beats + entries / chunk_entries(config, SELECT_BITS[code])
    passes = max(1, round(beats / count / each))
    block = KernelBlock(round(beats / count / passes), head, entries,
                        max(entries, config.words * config.drain_interval))
    return dataclasses.replace(
        layer, descriptor=fields | {"select_code": code, "resident": -(-tiles // passes)},
        steps=entries * count, entries=entries * count, stream_beats=block.beats * count,
        blocks=(block,) * count,
    )


def estimates(run: Mapping[str, Any]) -> list[LayerCost]:
    """Estimate the layers of a run behind the memory that it had."""
    if "memory" not in run:
        raise UserError(f"{run['network']} on {run['config']}: the run does not say behind which "
                        "memory it was; record it again")
    program, memory = rebuild(run), run["memory"]
    rate = memory["bytes_per_cycle"] / (8 * program.config.port_words)
    return estimate(program, rate, memory["latency"])


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write the estimates and say how far off they are."""
    parser = Parser(prog="python -m sim.recorded", description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results", metavar="DIR")
    args = parser.parse_args(argv)
    if not args.results.is_dir():
        raise UserError(f"--results {args.results}: no such folder")
    runs = list(recorded(args.results))
    estimated = []
    for path, run in runs:
        try:
            estimated.append(estimates(run))
            if len(estimated[-1]) != len(run["layers"]):
                raise ValueError(f"{len(run['layers'])} layers, {len(estimated[-1])} were compiled")
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise UserError(f"{path} lacks something or has a wrong value ({type(error).__name__}: "
                            f"{error}); record the run again") from error
    for (path, run), costs in zip(runs, estimated, strict=True):
        for layer, cost in zip(run["layers"], costs, strict=True):
            layer["estimated_cycles"] = cost.cycles
        said, was = (sum(layer[key] for layer in run["layers"])
                     for key in ("estimated_cycles", "cycles"))
        print(f"{path.name}: {was} cycles, estimated {100 * (said / was - 1):+.2f} %")
        write_output(path, json.dumps(run, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(None))
