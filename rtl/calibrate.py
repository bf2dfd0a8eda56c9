"""Fit `model.resources` to yosys: ``python -m rtl.calibrate``.

Every part of a core of several feature banks is synthesised by itself for a few small configs,
chosen so that each size it depends on is varied; cores of one bank (ECP5) are as a whole. Look-up
tables and flip-flops are then fitted, part by part, as sums of the terms named here (least squares
of the relative errors). Samples that are in the file already are not synthesised again, so the
whole is repeated only after the file was removed.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.lib import wiring
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from model.config import PRESETS, AcceleratorConfig
from model.console import report_console
from model.errors import Parser, command
from model.files import check_target, read_json, write_output
from model.resources import COEFFICIENTS, quantity
from rtl.convert import convert_rtlil
from rtl.core import Top
from rtl.resources import ECP5_TABLES, HIDE_NAMES, NO_COLLISIONS, run_yosys
from rtl.xilinx import parts as wide_parts

__all__ = ["COUNTS", "SAMPLES", "core_parts", "count", "fit", "fit_all", "key", "main",
           "sample_config"]

ROOT = Path(__file__).resolve().parents[1]
#: Counts of all samples.
COUNTS = ROOT / "docs" / "results" / "part-counts.json"

#: Samples that one run of yosys takes, which needs four seconds for its libraries.
BATCH = 16
#: What is counted, by the cells whose names begin so.
_CELLS = {
    "ecp5": {"LUT": ECP5_TABLES, "FF": {"TRELLIS_FF": 1}, "DSP": {"MULT18X18D": 1},
             "DP16KD": {"DP16KD": 1}},
    "xilinx": {
        "LUT": {"LUT": 1, "SRL": 1, "RAM32": 8, "RAM64": 8, "RAM128": 8, "RAM256": 8},
        "FF": {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1}, "DSP": {"DSP48": 1},
        "BRAM36": {"RAMB36": 1}, "BRAM18": {"RAMB18": 1}, "URAM": {"URAM": 1},
    },
}
#: Configs the samples are made from, by whether a core has several feature banks.
_WIDE = AcceleratorConfig(
    name="sample-wide", tile_lanes=3, kernel_lanes=16, weight_bits=16, acc_bits=40,
    tile_depth=512, kernel_depth=512, select_depth=128, feature_depth=2048, port_bits=256,
    feature_banks=8, post_values=6, map_pool=1,
)
_SINGLE = dataclasses.replace(PRESETS["ecp5-45f"], name="sample-single")

#: Sizes that a sample sets, in the order of its tuple, and the samples, part by part.
Samples = tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]
#: The terms a count is fitted with, products of the quantities of `model.resources.quantity`, and
#: the samples.
_Fit = tuple[tuple[str, ...], Samples]
_ONCE: _Fit = (("1",), ((), ((),)))
#: Parts a core has once: the sizes of `u200`, whose count has them.
_LARGE: Samples = (
    ("tile_lanes", "kernel_lanes", "feature_banks", "port_bits", "tile_depth", "kernel_depth",
     "select_depth", "ultra_ram"),
    ((14, 64, 16, 2048, 8192, 8192, 1024, 1),),
)

_WIDE_PARTS: dict[str, _Fit] = {
    "complex lane": (("1", "wb", "ab"), (
        ("weight_bits", "acc_bits"), ((16, 40), (16, 48), (8, 32)))),
    "drain of a tile lane": (("N*ab", "R*ab", "R"), (
        ("kernel_lanes", "inverse_rows", "acc_bits"),
        ((8, 1, 40), (16, 1, 32), (16, 2, 40), (8, 2, 40)))),
    "tile buffer of a tile lane": (("1", "F"), (("feature_banks",), ((8,), (16,)))),
    "forward FFT": _ONCE,
    "sum buffer of a tile lane": (("1", "R"), (("inverse_rows",), ((1,), (2,)))),
    "inverse FFT": (("1", "R"), (("inverse_rows",), ((1,), (2,)))),
    "row post": (("R", "R*V"), (("inverse_rows", "post_values"), ((1, 6), (1, 4)))),
    "row queue": (("1", "P*R*V"), (("tile_lanes",), ((3,), (8,)))),
    "bank writer": (("1", "P", "P*R"), (
        ("tile_lanes", "inverse_rows"), ((3, 1), (8, 1), (8, 2)))),
    "feature bank": _ONCE,
    "tile walker": (("1",), _LARGE), "sum reader": (("1",), _LARGE),
    "loader": (("F",), _LARGE), "issue": (("N*wb",), _LARGE),
    "kernel buffer": (("N*wb",), _LARGE),
    "parameters": (("W",), _LARGE), "checker": (("W",), _LARGE),
    "input DMA": (("F",), _LARGE), "output DMA": (("F",), _LARGE),
    "prefetch": (("1",), _LARGE), "read arbiter": (("1",), _LARGE),
    "sequencer": (("1",), _LARGE), "registers": (("1",), _LARGE), "control": (("1",), _LARGE),
    "map pool": (("F",), (("feature_banks",), ((8,),))),
}
#: A core of one bank is small enough to be counted as a whole: minutes each.
_SINGLE_PARTS: dict[str, _Fit] = {
    "core": (("1", "P", "P*N"), (
        ("tile_lanes", "kernel_lanes", "onchip_kib", "max_layers"),
        ((1, 4, 16, 8), (2, 4, 48, 16), (2, 8, 64, 16)))),
}
#: Parts, their terms and samples, by family and by whether there are several feature banks.
SAMPLES: dict[tuple[str, str], dict[str, _Fit]] = {
    ("xilinx", "wide"): _WIDE_PARTS, ("ecp5", "single"): _SINGLE_PARTS,
}


def sample_config(kind: str, part: str, values: Sequence[int]) -> AcceleratorConfig:
    """Config of a sample of a part of a core of ``kind`` (``wide`` or ``single``)."""
    base, table = (_WIDE, _WIDE_PARTS) if kind == "wide" else (_SINGLE, _SINGLE_PARTS)
    return dataclasses.replace(base, **dict(zip(table[part][1][0], values, strict=True)))


def core_parts(
    config: AcceleratorConfig,
) -> dict[str, tuple[int, Callable[[], wiring.Component]]]:
    """Return how often a core has each part, and what builds the part, for any feature banks."""
    if config.feature_banks > 1:
        return wide_parts(config)
    return {"core": (1, lambda: Top(config))}


def count(components: Mapping[str, wiring.Component], family: str) -> dict[str, dict[str, int]]:
    """Count ``LUT``, ``FF``, ``DSP`` and the RAMs of components, in one run of yosys.

    A look-up table that is a shift register or RAM is one too; on Xilinx a cell of distributed RAM
    has eight.
    """
    names = {name: f"s{index}" for index, name in enumerate(components)}
    tops = " ".join(names.values())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, component in components.items():
            (folder / f"{names[name]}.il").write_text(
                convert_rtlil(component, name=names[name], initial=family == "ecp5"))
        # A module around them all, without connections; it keeps them apart.
        (folder / "wrap.v").write_text("module wrap; " + " ".join(
            f"(* keep *) {top} i{top}();" for top in names.values()) + " endmodule")
        read = "; ".join(f"read_rtlil {top}.il" for top in names.values())
        synthesise = {
            "ecp5": f"{NO_COLLISIONS}; synth_ecp5 -noflatten -top wrap",
            "xilinx": "synth_xilinx -family xcup -uram -noiopad -noclkbuf -top wrap",
        }[family]
        # Flat parts: abc starts anew for every module, which takes longer than its work.
        run_yosys(f"{read}; {HIDE_NAMES}; proc; flatten {tops}; read_verilog wrap.v; {synthesise}; "
                  "tee -q -o stat.json stat -json", folder)
        modules = json.loads((folder / "stat.json").read_text())["modules"]
    found = {}
    for name, top in names.items():
        cells: Counter[str] = Counter()
        for module, figures in modules.items():
            if module.removeprefix("\\").split(".")[0] == top:
                cells.update(figures["num_cells_by_type"])
        found[name] = {
            kind: sum(each * number for cell, number in cells.items()
                      for begin, each in counted.items() if cell.startswith(begin))
            for kind, counted in _CELLS[family].items()
        }
    return found


def fit(samples: Sequence[tuple[AcceleratorConfig, int]], terms: Sequence[str]) -> dict[str, float]:
    """Coefficients of the terms that give the counts with the least relative errors."""
    counts = np.array([value for _, value in samples], dtype=float)
    table = np.array([[quantity(config, term) for term in terms] for config, _ in samples])
    scale = 1 / np.maximum(counts, 1)
    found = np.linalg.lstsq(table * scale[:, None], counts * scale, rcond=None)[0]
    return {term: round(float(value), 3) for term, value in zip(terms, found, strict=True)}


def fit_all(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Coefficients of all parts by family, kind, part and resource."""
    result: dict[str, Any] = {}
    for (family, kind), table in SAMPLES.items():
        for part, (terms, (_, samples)) in table.items():
            rows = [(sample_config(kind, part, values), counts[key(family, kind, part, values)])
                    for values in samples]
            result.setdefault(family, {}).setdefault(kind, {})[part] = {
                what: fit([(config, row[what]) for config, row in rows], terms)
                for what in ("LUT", "FF")
            }
    return result


def key(family: str, kind: str, part: str, values: Sequence[int]) -> str:
    """Name of a sample in the file of counts."""
    return f"{family}, {kind}: {part} {'x'.join(map(str, values))}".rstrip()


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Synthesise the samples that are missing, and fit."""
    parser = Parser(prog="python -m rtl.calibrate", description=__doc__)
    parser.add_argument("--counts", type=Path, default=COUNTS, metavar="FILE",
                        help="counts of the samples (default docs/results/part-counts.json)")
    parser.add_argument("--out", type=Path, default=COEFFICIENTS, metavar="FILE",
                        help="coefficients (default the model's own file)")
    args = parser.parse_args(argv)
    for path in (args.counts, args.out):
        check_target(path)
    counts = read_json(args.counts) or {}
    todo = [(family, kind, part, values) for (family, kind), table in SAMPLES.items()
            for part, (_, (_, samples)) in table.items() for values in samples
            if key(family, kind, part, values) not in counts]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("yosys", total=len(todo))
        for family in dict.fromkeys(sample[0] for sample in todo):
            mine = [sample for sample in todo if sample[0] == family]
            for at in range(0, len(mine), BATCH):
                batch = mine[at:at + BATCH]
                counts |= count({
                    key(*sample): core_parts(sample_config(sample[1], sample[2], sample[3]))
                    [sample[2]][1]() for sample in batch
                }, family)
                write_output(args.counts, json.dumps(counts, indent=0) + "\n")
                progress.advance(bar, len(batch))
    write_output(args.out, json.dumps(fit_all(counts), indent=1) + "\n")
    report_console().print(_errors(counts))
    return 0


def _errors(counts: Mapping[str, Any]) -> Table:
    """Count the samples of each part, and the largest error of its fit."""
    fitted = fit_all(counts)
    table = Table("family", "kind", "part", "samples", "LUT, worst", "FF, worst")
    for (family, kind), parts in SAMPLES.items():
        for part, (_, (_, samples)) in parts.items():
            worst = []
            for what in ("LUT", "FF"):
                errors = [
                    sum(c * quantity(sample_config(kind, part, values), term)
                        for term, c in fitted[family][kind][part][what].items())
                    / max(1, counts[key(family, kind, part, values)][what]) - 1
                    for values in samples
                ]
                worst.append(f"{100 * max(errors, key=abs):+.1f} %")
            table.add_row(family, kind, part, str(len(samples)), *worst)
    return table


if __name__ == "__main__":
    raise SystemExit(main(None))
