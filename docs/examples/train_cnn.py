"""Train the plain network that capsules are compared with: ``python docs/examples/train_cnn.py``."""

from __future__ import annotations

from typing import Any

from cnn import CNN, cross_entropy
from flags import count, parser
from training import Task, run


def task(shape: tuple[int, int, int], n_classes: int, options: dict[str, Any]) -> Task:
    """A CNN for these images, and its loss."""
    h, w, channels = shape
    return Task(lambda nn: CNN(channels, n_classes, (h, w), **options), cross_entropy)


if __name__ == "__main__":
    options = parser(__doc__, name="cnn", libraries=("torch",))
    options.add_argument("--channels", type=count, nargs=2, default=(32, 64), help="of the convolutions")
    options.add_argument("--parameters", type=count, default=8_215_568, help="how many in all; CapsNet's by default")
    given = options.parse_args()
    run(given, "CNN", task, channels=given.channels, parameters=given.parameters)
