"""Train the CapsNet of Sabour, Frosst and Hinton (2017): ``python docs/examples/train_capsnet.py``."""

from __future__ import annotations

from typing import Any

from emroute.nn import capsnet_loss
from flags import add_decoder_activation, count, decoder_activation, parser
from training import Task, run


def task(shape: tuple[int, int, int], n_classes: int, options: dict[str, Any]) -> Task:
    """A CapsNet for these images, and its loss."""
    h, w, channels = shape
    options = dict(options)
    reduction = options.pop("reconstruction_reduction")

    def build(nn: Any, **more: Any) -> Any:
        return nn.CapsNet(channels, n_classes, (h, w), **options, **more)

    def loss(output: Any, images: Any, labels: Any, margin: float) -> Any:
        return capsnet_loss(output, images, labels, reconstruction_reduction=reduction)

    return Task(build, loss)


if __name__ == "__main__":
    options = parser(__doc__, name="capsnet")
    options.add_argument("--channels", type=int, default=256, help="of the convolution")
    options.add_argument("--primary-capsules", type=int, default=32, help="kinds of primary capsules")
    options.add_argument("--n-iter", type=count, help="routing iterations; 3, or 2 with --tutorial, by default")
    options.add_argument("--decoder-features", type=int, nargs="*", default=(512, 1024), help="of its hidden layers")
    options.add_argument("--no-decoder", action="store_true", help="leave the decoder out")
    options.add_argument(
        "--tutorial",
        action="store_true",
        help="rectify primary capsules, route twice, sum reconstructions over batches",
    )
    add_decoder_activation(options)
    given = options.parse_args()
    run(
        given,
        "CapsNet",
        task,
        channels=given.channels,
        primary_capsules=given.primary_capsules,
        n_iter=given.n_iter or (2 if given.tutorial else 3),
        primary_relu=given.tutorial,
        decoder=not given.no_decoder,
        decoder_activation=decoder_activation(given),
        decoder_features=given.decoder_features,
        reconstruction_reduction="sum" if given.tutorial else "mean",
    )
