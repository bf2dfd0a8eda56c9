"""Section of the results page: the figures of others and ours beside them.

Theirs are constants with their sources; ours are computed from the files of the runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.config import PRESETS
from model.network import NETWORKS, Conv
from model.outline import dense_operations, part
from sim.bench.nngen import NNGEN, NNGEN_PORT

__all__ = ["anchors"]

Read = Callable[[Path, str], Any]
Table = Callable[[Sequence[str], Sequence[Sequence[object]]], str]
Row = tuple[object, ...]


@dataclass(frozen=True)
class Anchor:
    """A figure of somebody else; what a source does not say is empty."""

    work: str
    value: float
    unit: str
    device: str = ""
    clock: str = ""
    multipliers: str = ""
    bits: str = ""


# Niu et al., "Reuse Kernels or Activations?", FPGA 2020 (arXiv 2310.10902): 13 convolutions of
# VGG16, alpha 4, batch 1; 68 ms is the earlier accelerator it compares with.
FPGA20 = Anchor("FPGA 2020, VGG16 convolutions", 9.0, "ms", "Alveo U200", "200", "2860", "16")
EARLIER = Anchor("SPEC2-era baseline, the same", 68.0, "ms")
# Zhang et al., Electronics 2019, 8(3), 295: whole AlexNet; the device has 1728 DSPs.
ELECTRONICS = Anchor("Electronics 2019, AlexNet", 9.73, "images/s", "ZCU104", "", "of 1728", "8")
ELECTRONICS_FILE = Anchor("Electronics 2019, AlexNet's weights", 8.7, "MB", "ZCU104", "", "", "8")
# Li et al., FCCM 2017 (10.1109/FCCM.2017.21): AlexNet, 71.2 GOPS real; the device has 900 DSPs.
FCCM = Anchor("FCCM 2017, AlexNet, dense-equivalent", 271.6, "GOPS", "ZC706", "", "of 900")
FCCM_REAL = Anchor("FCCM 2017, AlexNet, real", 71.2, "GOPS", "ZC706", "", "of 900")
# Aydonat et al., FPGA 2017 (arXiv 1701.03534); Zhu et al. 2020 (arXiv 2001.01955).
DLA = Anchor("DLA, AlexNet", 1020, "images/s", "Arria 10", "", "", "fp16")
SPARSE = Anchor("sparse, AlexNet", 987, "images/s", "ZCU102")
# Liu et al., WinoCNN, ASAP 2021: operations of the dense convolution.
WINOCNN = Anchor("WinoCNN, VGG16, dense-equivalent", 1.33, "GOPS per DSP", "ZCU102")
# NNgen 1.3.4, its Verilog simulated (see sim.results and sim.bench.nngen).
NNGEN_LENETS = {"lenet": ("LeNet", 151_066), "lenet5": ("LeNet-5", 32_434)}
# 8-point transforms placed and routed on the same device with the same tools (peers of rtl.fft).
FFTS = (Anchor("maia-hdl, 8-point FFT", 137, "MHz", "ECP5-85F-6", "", "3"),
        Anchor("dblclockfft, 8-point FFT", 141, "MHz", "ECP5-85F-6", "", "3"))
#: Our block beside them.
FFT_BLOCK = "column, complex, 16 bit"

HEAD = ("work", "figure", "device", "clock MHz", "DSPs", "bits", "ours: config", "clock MHz",
        "multipliers", "bits", "cycles", "figure", "ratio", "what was run")
#: Units of which less is better.
LESS = ("ms", "MB", "cycles")
NOT_PLACED = "not placed"
EXACT, DIFFERENT = "equal to the golden model", "NOT EQUAL to the golden model"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.1f}"


def _row(anchor: Anchor, config: str, clock: str, multipliers: object, bits: object,
         cycles: object, value: float, what: str) -> Row:
    better = anchor.value / value if anchor.unit in LESS else value / anchor.value
    theirs = f"{anchor.value:.0f}" if anchor.value >= 1000 else f"{anchor.value:g}"
    return (anchor.work, f"{theirs} {anchor.unit}", anchor.device, anchor.clock,
            anchor.multipliers, anchor.bits, config, clock, multipliers, bits, cycles,
            f"{_number(value)} {anchor.unit}", f"{better:.2f}×" if better < 10
            else f"{better:.1f}×", what)


class _Run:
    """A run of `sim.run` as an opponent."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run, self.config = run, PRESETS[run["config"]]
        self.cycles, self.clock = max(run["cycles"]), run["clock_hz"]
        self.network = NETWORKS[run["network"]]

    @property
    def convolutions(self) -> list[dict[str, Any]]:
        """Figures of the convolutions, which come first."""
        count = sum(isinstance(layer, Conv) for layer in self.network.layers)
        return self.run["layers"][:count]

    @property
    def convolving(self) -> int:
        """Cycles of the convolutions."""
        return sum(layer["cycles"] for layer in self.convolutions)

    def gops(self, dense: bool) -> float:
        """Of the convolutions, as if dense or those a lane's three multipliers do for a weight."""
        layers = self.convolutions
        operations = dense_operations(part(self.network, 0, len(layers))) if dense else (
            6 * self.config.tile_lanes * self.config.kernel_lanes
            * sum(layer["mac_issue_cycles"] * layer["lanes_filled"] for layer in layers))
        return operations * self.clock / self.convolving / 1e9

    def row(self, anchor: Anchor, value: float, what: str, cycles: int | None = None) -> Row:
        """Row of the table; ``what`` of the network was looked at, all its cycles or ``cycles``."""
        exact = EXACT if self.run["bit_exact"] else DIFFERENT
        return _row(anchor, f"`{self.run['config']}`",
                    f"{self.clock / 1e6:g} assumed, {NOT_PLACED}", self.run["multipliers"],
                    f"{self.config.weight_bits}", cycles or self.cycles, value,
                    f"RTL, {self.run['pattern']}: {what}, {exact}")


def anchors(folder: Path, read: Read, table: Table) -> str:
    """All anchors of which a run is there."""
    rows = [*_vgg16(folder, read), *_alexnets(folder, read), *_nngen(folder, read),
            *_transforms(folder, read)]
    if not rows:
        return ""
    return (
        "## Beside the figures of others\n"
        "Ratio: how much better ours is. Cycles are of RTL simulation, batch 1, none of them "
        "estimated, at a port that gives what the run's own section says. **Not placed: the "
        "clock of every row that says so is assumed**, as no tool here places these devices; "
        "cycles do not depend on it. A figure in ms, images/s or GOPS is cycles at that clock. "
        "Multipliers are those of lanes and requantisers, a DSP block each; theirs after \"of\" "
        "are all the device has. Empty: the source does not say. Bits are of weights; activations "
        "have 8. Dense-equivalent: two operations for each multiplication of the dense convolution "
        "done directly; real: for each of a lane's three multiplications where it has a weight.\n\n"
        + table(HEAD, rows)
        + "\n\nBytes of the files (docs/storage.md): `python -m model.storage alexnet --weights "
        "synthetic --dense-alpha A --json docs/results/storage-alexnet-aA.json`; commands of the "
        "runs stand in their sections.\n"
    )


def _vgg16(folder: Path, read: Read) -> Iterator[Row]:
    for name in ("u200-vgg16-channel", "u200-window-vgg16-kernel"):
        if content := read(folder, f"{name}.json"):
            run = _Run(content)
            for anchor in (FPGA20, EARLIER):
                yield run.row(anchor, 1000 * run.cycles / run.clock,
                              "all 13 convolutions and 5 pools")
            each, real = (run.gops(dense) / run.run["multipliers"] for dense in (True, False))
            yield run.row(WINOCNN, each, "dense-equivalent GOPS of convolutions and pools per "
                          f"multiplier ({real:.3f} real)", run.convolving)


def _alexnets(folder: Path, read: Read) -> Iterator[Row]:
    files = {(stored["network"], stored["pattern"]): stored
             for path in sorted(folder.glob("storage-alexnet-a*.json"))
             if (stored := read(folder, path.name))}
    for path in sorted(folder.glob("zcu104-alexnet-a*.json")):
        run = _Run(read(folder, path.name))
        for anchor in (ELECTRONICS, DLA, SPARSE):
            yield run.row(anchor, run.clock / run.cycles, "whole network, random weights")
        yield run.row(ELECTRONICS_FILE, run.run["read_bytes"][-1] / 1e6,
                      "what the core reads for an image, input included")
    for stored in files.values():
        yield _row(ELECTRONICS_FILE, "", "", "", stored["weight_bits"], "", stored["file"] / 1e6,
                   f"whole .spcn file, {stored['pattern']}, random weights")
    for path in sorted(folder.glob("zc706-alexnet-a*.json")):
        run = _Run(read(folder, path.name))
        for anchor, dense in ((FCCM, True), (FCCM_REAL, False)):
            yield run.row(anchor, run.gops(dense),
                          "convolutions and pools of the whole network, random weights",
                          run.convolving)


def _nngen(folder: Path, read: Read) -> Iterator[Row]:
    for network, (title, cycles) in NNGEN_LENETS.items():
        for pattern in ("channel", "kernel"):
            if run := read(folder, f"run-{network}-{pattern}-a4.json"):
                ours, config = max(run["cycles"]), PRESETS[run["config"]]
                exact = EXACT if run["bit_exact"] else DIFFERENT
                yield _row(Anchor(f"NNgen 1.3.4, {title}", cycles, "cycles", "", "", "100", "8"),
                           f"`{config.name}`", "", config.multipliers, config.weight_bits, ours,
                           ours, f"RTL, {run['pattern']}: whole network, "
                           f"{len(run['images'])} digits, {exact}")
    single = read(folder, "nngen.json")
    for row in single["layers"] if single else ():
        name = row["name"]
        theirs = NNGEN[name if name in NNGEN else f"{name.split('_')[0]}_x"][0]
        port = f"{row['bytes_per_cycle']:g} bytes a cycle"
        if row["bytes_per_cycle"] == NNGEN_PORT:
            port += " as NNgen"
        yield _row(Anchor(f"NNgen 1.3.4, VGG16 {name}", theirs, "cycles", "", "", "148", "8"),
                   f"`{single['config']}`", "", single["multipliers"],
                   PRESETS[single["config"]].weight_bits, row["cycles"], row["cycles"],
                   f"RTL, {single['pattern']}: the layer alone, maps in and out included, "
                   f"{port}, {EXACT if row['bit_exact'] else DIFFERENT}")


def _transforms(folder: Path, read: Read) -> Iterator[Row]:
    block = (read(folder, "fft.json") or {}).get(FFT_BLOCK)
    if not block or not block.get("Fmax"):
        return
    for anchor in FFTS:
        yield _row(anchor, FFT_BLOCK, "", block["MULT18"], "", "", block["Fmax"],
                   "placed and routed by nextpnr, one seed; 8 samples a cycle, theirs one")
