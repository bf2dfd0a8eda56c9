"""Train, prune and quantise a network: ``python -m pruning.train lenet --data DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from model.errors import Parser, UserError, command
from model.files import check_target
from pruning.data import data_directory, load_digits
from pruning.recipe import Recipe
from pruning.threads import use_threads

_DEFAULT = Recipe("lenet")


def _parser() -> argparse.ArgumentParser:
    """Options of the command; the defaults are those of `Recipe`."""
    parser = Parser(prog="python -m pruning.train", description=__doc__)
    parser.add_argument("network", help="lenet or lenet5")
    parser.add_argument("--data", metavar="DIR", help="folder of the MNIST files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results (default build/NAME)")
    parser.add_argument("--dense", type=Path, metavar="FILE", help="dense.pt of an earlier run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="log (default OUT/log.json)")
    parser.add_argument("--resume", action="store_true", help="go on from OUT/checkpoint.pt")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--pattern", default=_DEFAULT.pattern, help="channel (default) or kernel")
    for name, kind, text in (
        ("alpha", int, "compression of the convolutions"),
        ("weight_bits", int, "8 or 16"),
        ("epochs_dense", int, "epochs of the dense stage"),
        ("epochs_admm", int, "epochs of the ADMM stage"),
        ("epochs_retrain", int, "epochs of masked, quantised retraining"),
        ("batch", int, "images per step"),
        ("rate_dense", float, "Adam learning rate of the dense stage"),
        ("rate_admm", float, "the same of the ADMM stage"),
        ("rate_retrain", float, "the same of the retraining"),
        ("rho_first", float, "ADMM penalty at the start"),
        ("rho_last", float, "ADMM penalty at the end"),
        ("updates", int, "Z and U updates per epoch"),
        ("distill", float, "share of distillation in the loss, 0..1"),
        ("seed", int, "seed of every random choice"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=getattr(_DEFAULT, name),
            help=f"{text} (default %(default)s)",
        )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse the options, run the stages, write network, log and plot."""
    args = _parser().parse_args(argv)
    use_threads(args.threads)
    names = Recipe.__dataclass_fields__
    recipe = Recipe(**{name: getattr(args, name) for name in names})
    _train(recipe, args)
    return 0


def _check_targets(out: Path, *targets: Path) -> None:
    """Make the folder of the results and refuse, before hours of training, what it cannot take."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make folder {out}: {error.strerror}; choose another with "
                        "--out") from error
    for target in targets:
        check_target(target)


def _train(recipe: Recipe, args: argparse.Namespace) -> None:
    """Run the stages and write the results."""
    from pruning.batches import samples
    from pruning.export import export, integer_accuracy, sparsity
    from pruning.report import plot, write_json
    from pruning.stages import CALIBRATION, Run, evaluate

    directory = data_directory(args.data)
    out = args.out or Path("build") / recipe.title
    target, log = out / f"{recipe.title}.npz", args.json or out / "log.json"
    picture = out / "convergence.png"
    _check_targets(out, target, log, picture, out / "checkpoint.pt", out / "dense.pt")
    train = samples(load_digits(directory, "train"), recipe.net)
    test = samples(load_digits(directory, "t10k"), recipe.net)
    run = Run(recipe, train, test, out)
    run.execute(args.dense, args.resume)
    accuracy = evaluate(run.spectral, test)
    zeros_conv, zeros_linear = sparsity(run.spectral)
    quantised = export(run.spectral, recipe.patterns(), train.head(CALIBRATION))
    quantised.save(target)
    golden = integer_accuracy(quantised, test)
    write_json(log, {
        "recipe": recipe.to_dict(),
        "patterns": {name: str(pattern) for name, pattern in recipe.patterns().items()},
        "result": {
            "dense_accuracy": run.dense_accuracy,
            "fake_quantised_accuracy": accuracy,
            "integer_accuracy": golden,
            "zeros_conv_percent": round(100 * zeros_conv, 3),
            "zeros_linear_percent": round(100 * zeros_linear, 3),
        },
        "epochs": run.history,
    })
    plot(picture, run.history, recipe.title)
    print(
        f"{recipe.title}: dense {run.dense_accuracy:.2f} %, {recipe.weight_bits}-bit integers "
        f"{golden:.2f} % (fake-quantised {accuracy:.2f} %), zeros {100 * zeros_conv:.1f} % of "
        f"convolution words and {100 * zeros_linear:.1f} % of linear weights; {target}"
    )


if __name__ == "__main__":
    raise SystemExit(main(None))
