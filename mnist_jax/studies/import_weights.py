"""`scripts/import WEIGHTS --model-id ID --licence NAME`: makes a run of weights trained elsewhere.

WEIGHTS comes first: .pth, .pt (PyTorch), .safetensors, .h5 (Keras) or .npz. The flags of
scripts/train that say nothing of training work here too: --dataset-id, --data-dir, --output-dir,
--config.network.NAME, the criteria. The weights are proven, judged and documented as trained ones.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mnist_jax import command
from mnist_jax.config import Changes, default, flags, keys_that_change
from mnist_jax.errors import UserError
from mnist_jax.run import log
from mnist_jax.run.stopwatch import Phases

# Of the keys that change a model, those of its network and its data. The others say how to train,
# of which nothing is known here.
OF_NETWORK = frozenset(("model_id", "network", "criterion_id", "image_side", "channels"))
OF_DATA = frozenset(("dataset_id", "data", "fit", "validation_share", "test_share", "seed"))
OF_DATA |= frozenset(("transposed", "drop_duplicates"))
OF_TRAINING = sorted({*keys_that_change(Changes.MODEL)} - OF_NETWORK - OF_DATA)
OF_TRAINING += ["mesh", "coordinator", "num_processes", "process_id"]


def main(arguments: Sequence[str]) -> int:
    """Returns 0 where the model is released, 1 where refused, 2 on a mistake."""
    phases = Phases()
    return command.status_of(lambda: _parse_and_run(arguments, phases))


def _parser() -> command.Parser:
    parser = command.Parser("scripts/import", __doc__)
    parser.add_argument("weights", type=Path, help="the file of weights; the first argument")
    parser.add_argument("--model-id", "--model_id", required=True, help="the network they are of")
    parser.add_argument("--licence", required=True, help="of the weights, as in MIT; recorded")
    parser.add_argument("--source", default="not given", help="where they are from; recorded")
    parser.add_argument("--mapping", type=Path, help="JSON: our names to the file's")
    parser.add_argument(
        "--input-divisor",
        type=int,
        choices=(255, 256),
        help="what pixels 0 to 255 were divided by; asked for where nothing normalises",
    )
    parser.add_argument("--input-mean", type=float, help="subtracted then, as in 0.1307")
    parser.add_argument("--input-std", type=float, help="divided by then, as in 0.3081")
    return parser


def _parse_and_run(arguments: Sequence[str], phases: Phases) -> int:
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise UserError(f"{arguments[0]} comes first; begin with the file: scripts/import WEIGHTS")
    options, rest = _parser().parse_known_args(arguments)
    options.weights = Path(command.expand(str(options.weights)))
    given = flags.parse_here([f"--model-id={options.model_id}", *rest])
    assert given is not None  # --help has been answered
    config, usual = dict(given), default()
    for key in OF_TRAINING:
        if config[key] != usual[key]:
            raise UserError(f"{key} is {config[key]!r}, but nothing is trained here; leave it out")
    console = Console(quiet=config["quiet"])
    with log.to_terminal(console):
        # Imported here, so that --help and a mistaken flag answer without loading JAX.
        with command.loading():
            from mnist_jax.studies import importing

        return importing.run(config, options, console, phases)


if __name__ == "__main__":
    command.run_as_program(main)
