"""Train, prune and quantise a network: ``python -m pruning.train lenet --data DIR``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from model.errors import Parser, UserError, command
from model.files import check_target, prepare_folder
from pruning.cifar import load_cifar
from pruning.data import data_directory, load_digits
from pruning.evaluate import accuracy as integer_accuracy
from pruning.recipe import PRESETS, Recipe
from pruning.selection import NAMES
from pruning.threads import choose_device, use_threads


def _parser() -> argparse.ArgumentParser:
    """Options of the command; what is not given comes from `Recipe.preset`."""
    parser = Parser(prog="python -m pruning.train", description=__doc__)
    parser.add_argument("network", help=", ".join(PRESETS))
    parser.add_argument("--data", metavar="DIR", help="folder of the MNIST or CIFAR-10 files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results (default build/NAME)")
    parser.add_argument("--dense", type=Path, metavar="FILE", help="dense.pt of an earlier run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="log (default OUT/log.json)")
    parser.add_argument("--config", type=Path, metavar="FILE",
                        help="log (or JSON of its recipe) whose settings to use; options go first")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--save-seconds", type=float, default=0.0, metavar="S",
                        help="least time between checkpoints within a stage (default: each epoch)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--dense-only", action="store_true",
                        help="stop when OUT/dense.pt is written")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda")
    parser.add_argument("--pattern", help=f"{', '.join(NAMES)} (default channel)")
    for name, kind, text in (
        ("alpha", int, "compression of the convolutions"),
        ("method", str, "admm, lasso for the groups of the pattern locality, or layerwise"),
        ("lanes", int, "outputs of a group of the pattern locality"),
        ("banks", int, "channels of a group of the pattern locality"),
        ("weight_bits", int, "8 or 16"),
        ("epochs_dense", int, "epochs of the dense stage"),
        ("epochs_admm", int, "epochs of the ADMM stage"),
        ("epochs_masked", int, "epochs of masked retraining with float weights"),
        ("epochs_retrain", int, "epochs of masked, quantised retraining"),
        ("batch", int, "images per step"),
        ("optimiser_dense", str, "adam or sgd"),
        ("decay", float, "weight decay of the dense stage"),
        ("rate_dense", float, "learning rate of the dense stage"),
        ("rate_admm", float, "the same of the ADMM stage"),
        ("rate_masked", float, "the same of the masked retraining"),
        ("rate_retrain", float, "the same of the quantised retraining"),
        ("rho_first", float, "ADMM penalty at the start"),
        ("rho_last", float, "ADMM penalty at the end"),
        ("strength_first", float, "strength of the group lasso at the start"),
        ("strength_last", float, "strength of the group lasso at the end"),
        ("updates", int, "Z and U updates per epoch"),
        ("distill", float, "share of distillation in the loss, 0..1"),
        ("precision", str, "float32, or bfloat16 for autocast"),
        ("hold_out", int, "every so-manyth training image is held out, and epochs are measured on "
                          "those instead of the test images; 0: none"),
        ("seed", int, "seed of every random choice"),
        ("tag", str, "end of the result's name"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind,
            help=f"{text} (default {_defaults(name) or 'none'})",
        )
    parser.add_argument(
        "--layer", action="append", metavar="NAME=CHOICE", dest="layers",
        help="a layer's own density, pattern with its numbers, or 'dense': conv2=0.1, "
             "'fc1=channel 1:16'; may be repeated",
    )
    return parser


def _choices(texts: Sequence[str]) -> dict[str, str | float]:
    """Read the choices of ``--layer``."""
    found: dict[str, str | float] = {}
    for text in texts:
        name, equals, choice = text.partition("=")
        if not (name and equals and choice):
            raise UserError(f"--layer must be NAME=CHOICE, as conv2=0.1, not {text!r}")
        try:
            found[name] = float(choice)
        except ValueError:
            found[name] = choice
    return found


def _defaults(name: str) -> str:
    """Default of a setting, of every group of networks with its own."""
    values: dict[object, list[str]] = {}
    for network in PRESETS:
        values.setdefault(getattr(Recipe.preset(network), name), []).append(network)
    if len(values) == 1:
        return str(next(iter(values)))
    return ", ".join(f"{value}: {' '.join(names)}" for value, names in values.items())


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, run the stages, write network, log and plot."""
    args = _parser().parse_args(argv)
    use_threads(args.threads)
    if not args.save_seconds >= 0:
        raise UserError(f"--save-seconds must not be negative, not {args.save_seconds}")
    names = [name for name in Recipe.__dataclass_fields__ if hasattr(args, name)]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "layers" in given:
        given["layers"] = _choices(given["layers"])
    settings = _settings(args.config) if args.config else {}
    if settings and settings.pop("network") != given["network"]:
        raise UserError(f"{args.config} is of another network than {given['network']}")
    recipe = Recipe.preset(given.pop("network"), **(settings | given))
    _train(recipe, args)
    return 0


def _settings(path: Path) -> dict:
    """Read the settings of a log, or of a file that holds nothing else."""
    try:
        content = json.loads(path.read_text())
        settings = dict(content.get("recipe", content))
        unknown = settings.keys() - Recipe.__dataclass_fields__.keys()
    except OSError as error:
        raise UserError(f"config {path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"config {path} holds no settings: {error}") from error
    if unknown or "network" not in settings:
        raise UserError(f"config {path} " + (f"has unknown settings: {', '.join(sorted(unknown))}"
                                             if unknown else "names no network"))
    for name, value in settings.items():
        # JSON of an int is no int where a float is meant and the other way round.
        kind = type(getattr(Recipe.preset(settings["network"]), name))
        if isinstance(value, bool) != (kind is bool) or not isinstance(
            value, (int, float) if kind is float else kind
        ):
            raise UserError(f"config {path}: {name} must be {kind.__name__}, not {value!r}")
    return settings


def _check_targets(out: Path, *targets: Path) -> None:
    """Make the folder of the results and refuse, before hours of training, what it cannot take."""
    prepare_folder(out)
    for target in targets:
        check_target(target)


def _train(recipe: Recipe, args: argparse.Namespace) -> None:
    """Run the stages and write the results."""
    from pruning.batches import samples
    from pruning.export import export, sparsity
    from pruning.figures import draw_density, draw_maps
    from pruning.loop import evaluate
    from pruning.maps import kept_maps, layer_density
    from pruning.report import plot, write_json
    from pruning.stages import CALIBRATION, Run

    directory = data_directory(args.data)
    out = args.out or Path("build") / recipe.title
    target, log = out / f"{recipe.title}.npz", args.json or out / "log.json"
    picture = out / "convergence.png"
    _check_targets(out, target, log, picture, out / "checkpoint.pt", out / "dense.pt")
    if recipe.net.input_shape[0] == 1:
        parts: tuple = load_digits(directory, "train"), load_digits(directory, "t10k")
    else:
        parts = load_cifar(directory, "train"), load_cifar(directory, "test")
    train, test = (samples(part, recipe.net) for part in parts)
    run = Run(recipe, train, test, out, choose_device(args.device), args.save_seconds)
    run.execute(args.dense, args.resume, args.dense_only)
    if args.dense_only:
        print(f"{recipe.network}: dense {run.dense_accuracy:.2f} %; {out / 'dense.pt'}")
        return
    accuracy = evaluate(run.spectral, run.test)
    zeros_conv, zeros_linear = sparsity(run.spectral)
    quantised = export(run.spectral, recipe.patterns(), run.train.head(CALIBRATION))
    quantised.save(target)
    golden = integer_accuracy(quantised, test.images.numpy(), test.labels.numpy())
    record = {
        "recipe": recipe.to_dict(),
        "data": {"name": train.kind, "train": len(run.train.labels), "test": len(test.labels),
                 "held_out": len(train.labels) - len(run.train.labels)},
        "device": str(run.device),
        "patterns": {name: str(pattern) for name, pattern in recipe.patterns().items()},
        "result": {
            "dense_accuracy": run.dense_accuracy,
            "fake_quantised_accuracy": accuracy,
            "integer_accuracy": golden,
            "zeros_conv_percent": round(100 * zeros_conv, 3),
            "zeros_linear_percent": round(100 * zeros_linear, 3),
        },
        "density": layer_density(run.spectral),
        "kept": kept_maps(run.spectral, run.dense),
        "epochs": run.history,
    }
    write_json(log, record)
    plot(picture, run.history, recipe.title)
    draw_density(out / "density.png", record | {"title": recipe.title})
    draw_maps(out / "kept.png", record)
    print(
        f"{recipe.title}: dense {run.dense_accuracy:.2f} %, {recipe.weight_bits}-bit integers "
        f"{golden:.2f} % (fake-quantised {accuracy:.2f} %), zeros {100 * zeros_conv:.1f} % of "
        f"convolution words and {100 * zeros_linear:.1f} % of linear weights; {target}"
    )


if __name__ == "__main__":
    raise SystemExit(main(None))
