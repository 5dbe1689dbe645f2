"""Train the network of Hinton, Sabour and Frosst (2018): ``python docs/examples/train_matrix_capsnet.py``."""

from __future__ import annotations

from typing import Any

from emroute.capsule import spread_margin
from emroute.nn import matrix_capsnet_loss
from flags import add_decoder_activation, decoder_activation, parser
from images import NAMES
from training import Task, run

ROUTINGS = ("em", "full", "variational", "attention", "self")


def task(shape: tuple[int, int, int], n_classes: int, options: dict[str, Any]) -> Task:
    """A MatrixCapsNet for these images, its loss, and the margin's course."""
    h, w, channels = shape
    options = dict(options)
    schedule = options.pop("margin")

    def build(nn: Any, **more: Any) -> Any:
        return nn.MatrixCapsNet(channels, n_classes, (h, w), **options, **more)

    def margin(epoch: int, step: int) -> float:
        return spread_margin(epoch if schedule == "epoch" else step, schedule=schedule)

    return Task(build, matrix_capsnet_loss, margin)


if __name__ == "__main__":
    single = tuple(name for name in NAMES if name != "multimnist-like")  # the spread loss has one class an image
    options = parser(__doc__, name="matrix_capsnet", data=single, batch_size=32, learning_rate=3e-3)
    options.add_argument("--widths", type=int, nargs=4, default=(64, 8, 16, 16), help="of the layers A, B, C, D")
    options.add_argument("--n-iter", type=int, default=2, help="routing iterations")
    options.add_argument("--routing", choices=ROUTINGS, default="em", help="of all layers")
    options.add_argument("--cost", choices=("normalized", "hinton"), help="of EM; normalized by default")
    options.add_argument("--temperature", type=float, nargs="+", help="inverse temperature of each iteration")
    options.add_argument("--margin", choices=("epoch", "step"), default="epoch", help="by what the margin grows")
    options.add_argument("--recompute", action="store_true", help="less memory, slower")
    options.add_argument("--decoder", action="store_true", help="reconstruct images from class poses")
    add_decoder_activation(options)
    given = options.parse_args()
    run(
        given,
        "MatrixCapsNet",
        task,
        widths=given.widths,
        n_iter=given.n_iter,
        routing=given.routing,
        cost=given.cost or ("hinton" if given.routing == "full" else "normalized"),
        inverse_temperature=given.temperature,
        recompute=given.recompute,
        margin=given.margin,
        decoder=given.decoder,
        decoder_activation=decoder_activation(given),
    )
