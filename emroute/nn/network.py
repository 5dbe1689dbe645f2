"""What capsule networks do alike, whichever framework their layers are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emroute.backend import Array, namespace
from emroute.capsule import Routing, mask_capsules
from emroute.capsule.losses import as_targets
from emroute.errors import InputError
from emroute.nn.layer import Layer
from emroute.nn.outputs import CapsuleOutput
from emroute.nn.sizes import check_drawable, check_images
from emroute.validate import require

__all__ = ["CapsuleNetwork"]


class CapsuleNetwork(Layer):
    """Images to class capsules, and class capsules to images; a network says how by `route` and `decoder`."""

    arguments: dict[str, Any]
    """What it was made with, device and dtype aside."""
    image_shape: tuple[int, int, int]
    """Of an image, as its framework lays it out."""
    decoder: Any
    route: Callable[[Array], Routing]
    """Takes images to the routing of the class capsules, whose poses are ``(B, classes, H)``."""

    def encode(self, images: Array) -> tuple[Array, Array]:
        """Take images to class poses ``(B, classes, H)`` and activations ``(B, classes)``."""
        check_images(images, self.image_shape)
        try:
            found = self.route(images)
        except InputError:  # only then are the images inspected
            require(namespace(images).all(namespace(images).isfinite(images)), lambda: "images hold NaN or infinity")
            raise
        return found.poses, found.activations

    def reconstruct(self, poses: Array, labels: Array) -> Array:
        """Draw images from the poses ``(B, classes, H)`` of some classes alone: labels, or targets of 0 and 1."""
        if self.decoder is None:
            raise InputError("this network has no decoder: make it with decoder=True")
        return self.decoder(mask_capsules(poses, labels))

    def forward(self, images: Array, labels: Array | None = None) -> CapsuleOutput:
        """Find class capsules in images and draw the images again; as `find`."""
        return self.find(images, labels)

    def find(self, images: Array, labels: Array | None = None) -> CapsuleOutput:
        """Find class capsules in images and draw the images again from the capsules of one class.

        Parameters
        ----------
        images
            As its framework lays them out, ``(B, C, h, w)`` or ``(B, h, w, C)``, floating.
        labels
            What is drawn: in training the true classes ``(B,)``, or targets ``(B, classes)`` of 0 and 1; the predicted
            classes where None. Where they are given, the decoder must be able to draw the images.

        Returns
        -------
        CapsuleOutput
            Class capsules and reconstructions.

        Raises
        ------
        InputError
            If images or labels have another shape, images hold NaN or infinity, labels are not classes, or images that
            come with labels lie outside the decoder's range (told where there are values: not while a compiler traces).
        InputTypeError
            If images are not floating, or labels of another library or device.
        """
        poses, activations = self.encode(images)
        if self.decoder is None:
            if labels is not None:  # nothing is drawn, but wrong ones are an error all the same
                as_targets(labels, activations)
            return CapsuleOutput(poses, activations, None)
        if labels is not None:
            check_drawable(images, getattr(self.decoder, "range", None))
        shown = activations.argmax(-1) if labels is None else labels
        return CapsuleOutput(poses, activations, self.reconstruct(poses, shown))
