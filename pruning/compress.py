"""Prune AlexNet by magnitude, layer by layer, quantise it to 8 bits and count its bytes.

``python -m pruning.compress alexnet-tiny --data DIR --order reversed --peak histogram``.  Writes
the sparse file, reads it back and measures what it holds on the validation images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from model.errors import Parser, UserError, command
from model.files import check_target, prepare_folder, write_output
from model.spatialfile import encode_spatial, load_spatial
from model.storage import print_storage, storage
from pruning.compressrecipe import ORDERS, PEAKS, TRAINABLE, CompressRecipe
from pruning.data import data_directory
from pruning.threads import use_threads
from pruning.tinyimagenet import load_tiny_imagenet

_SETTINGS = (
    ("drop", float, "percentage points one layer may cost before it is retrained"),
    ("epochs_dense", int, "epochs of the dense training"),
    ("epochs_layer", float, "passes over the images after each layer"),
    ("epochs_peak", float, "the same for every try of peak-pruning"),
    ("epochs_masked", float, "epochs with all masks"),
    ("epochs_retrain", float, "epochs with 8-bit weights and activations"),
    ("rate_dense", float, "learning rate of the dense training"),
    ("rate_layer", float, "the same after each layer and in peak-pruning"),
    ("rate_masked", float, "the same with all masks"),
    ("rate_retrain", float, "the same with 8 bits"),
    ("factor", float, "what one try of peak accuracy multiplies a density by"),
    ("patience", int, "tries of peak accuracy that may fail"),
    ("batch", int, "images per step"),
    ("decay", float, "weight decay"),
    ("smoothing", float, "label smoothing"),
    ("precision", str, "float32, or bfloat16 for autocast"),
    ("seed", int, "seed of every random choice"),
)


def _parser() -> argparse.ArgumentParser:
    """Options of the command; what is not given comes from `CompressRecipe`."""
    parser = Parser(prog="python -m pruning.compress", description=__doc__)
    parser.add_argument("network", help=", ".join(TRAINABLE))
    parser.add_argument("--data", metavar="DIR", help="folder of the Tiny ImageNet files")
    parser.add_argument("--order", help=f"{', '.join(ORDERS)}: prunes nothing and trains as long "
                        "(default reversed)")
    parser.add_argument("--peak", help=f"{', '.join(PEAKS)} (default none)")
    parser.add_argument("--densities", type=Path, metavar="FILE",
                        help="log of another run (or JSON of layer: share) whose densities to take")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results (default build/NAME)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="log (default OUT/log.json)")
    parser.add_argument("--dense", type=Path, metavar="FILE", help="dense.pt of another run")
    parser.add_argument("--pruned", type=Path, metavar="FILE",
                        help="pruned.pt of another run: begin with the peak")
    parser.add_argument("--dense-only", action="store_true",
                        help="stop when OUT/dense.pt is written")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    for name, kind, text in _SETTINGS:
        default = CompressRecipe.__dataclass_fields__[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind,
                            help=f"{text} (default {default})")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, run the stages, write the file, the log and the plot."""
    args = _parser().parse_args(argv)
    use_threads(args.threads)
    names = ("network", "order", "peak", *(name for name, *_ in _SETTINGS))
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    densities = None if args.densities is None else _densities(args.densities)
    _compress(CompressRecipe(**given, densities=densities), args)
    return 0


def _densities(path: Path) -> dict[str, float]:
    """Share of kept weights by layer, from a log or from JSON of nothing else."""
    try:
        content = json.loads(path.read_text())
        return dict(content.get("densities", content))
    except OSError as error:
        raise UserError(f"densities {path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"densities {path} hold no shares by layer: {error}") from error


def _compress(recipe: CompressRecipe, args: argparse.Namespace) -> None:
    """Run the stages and write the results."""
    from pruning.alexnet import export, restore
    from pruning.compression import CompressRun
    from pruning.compresstrain import as_samples, split
    from pruning.figures import draw_orders
    from pruning.loop import evaluate
    from pruning.magnitude import densities, kept, prunable
    from pruning.report import write_json

    directory = data_directory(args.data)
    out = args.out or Path("build") / recipe.title
    target, log, picture = out / f"{recipe.title}.spcs", args.json or out / "log.json", \
        out / "orders.png"
    prepare_folder(out)
    for path in (target, log, picture, out / "checkpoint.pt"):
        check_target(path)
    train, held = split(load_tiny_imagenet(directory, "train"))
    test = as_samples(load_tiny_imagenet(directory, "val"))
    run = CompressRun(recipe, train, held, test, out)
    run.execute(args.dense, args.pruned, args.resume, args.dense_only)
    dense = run.dense_accuracy["test"]
    if args.dense_only:
        print(f"{recipe.network}: dense {dense:.2f} %; {out / 'dense.pt'}")
        return
    write_output(target, encode_spatial(export(run.model))[0])
    stored = load_spatial(target)
    model, sizes = restore(stored), storage(stored)
    accuracy = evaluate(model, test)
    weights = sum(int(kept(module).sum()) for _, module in prunable(run.model))
    biases = sum(len(layer.bias) for layer in stored.layers)
    parameters = sizes["dense_float32"] // 4
    result = {
        "dense_accuracy": dense, "dense_held_out": run.dense_accuracy["held"],
        "accuracy": accuracy, "held_out": evaluate(model, held), "loss": dense - accuracy,
        "parameters": parameters, "kept": weights + biases,
        "fewer_parameters": parameters / (weights + biases),
        "file": sizes["file"], "smaller_file": sizes["dense_float32"] / sizes["file"],
        "epochs_after_dense": run.spent(),
    }
    record = {
        "recipe": recipe.to_dict(),
        "data": {"name": train.kind, "train": len(train.labels), "held_out": len(held.labels),
                 "test": len(test.labels)},
        "result": result,
        "densities": {name.removeprefix("layers."): share
                      for name, share in densities(run.model).items()},
        "storage": sizes, "steps": run.steps, "history": run.history,
    }
    write_json(log, record)
    draw_orders(picture, [record])
    print_storage(sizes)
    print(f"{recipe.title}: dense {dense:.2f} %, stored 8-bit network {accuracy:.2f} %; "
          f"{result['fewer_parameters']:.1f} times fewer parameters, file "
          f"{result['smaller_file']:.1f} times smaller; {target}")


if __name__ == "__main__":
    raise SystemExit(main(None))
