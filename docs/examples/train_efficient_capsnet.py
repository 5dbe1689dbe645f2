"""Train the network of Mazzia, Salvetti and Chiaberge (2021): ``python docs/examples/train_efficient_capsnet.py``.

Its authors chose the best epoch by the test set. Here validation images choose, as for all the networks.
"""

from __future__ import annotations

from typing import Any

from emroute.nn import capsnet_loss
from flags import add_decoder_activation, decoder_activation, parser
from training import Task, run


def task(shape: tuple[int, int, int], n_classes: int, options: dict[str, Any]) -> Task:
    """An EfficientCapsNet for these images, and its loss; 0.0005 a pixel is the authors' 0.392 of the mean of 784."""
    h, w, channels = shape

    def build(nn: Any, **more: Any) -> Any:
        return nn.EfficientCapsNet(channels, n_classes, (h, w), **options, **more)

    def loss(output: Any, images: Any, labels: Any, margin: float) -> Any:
        return capsnet_loss(output, images, labels)

    return Task(build, loss)


if __name__ == "__main__":
    options = parser(__doc__, name="efficient_capsnet", batch_size=16, learning_rate=5e-4)
    options.add_argument("--channels", type=int, nargs=4, default=(32, 64, 64, 128), help="of the convolutions")
    options.add_argument("--decoder-features", type=int, nargs="*", default=(512, 1024), help="of its hidden layers")
    options.add_argument("--no-decoder", action="store_true", help="leave the decoder out")
    add_decoder_activation(options)
    given = options.parse_args()
    run(
        given,
        "EfficientCapsNet",
        task,
        channels=given.channels,
        decoder=not given.no_decoder,
        decoder_activation=decoder_activation(given),
        decoder_features=given.decoder_features,
    )
