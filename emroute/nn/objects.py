"""Object capsules of the stacked capsule autoencoder: what they are, and the parts that they vote for."""

from __future__ import annotations

from typing import Any, NamedTuple, Unpack

from emroute.arrays.functions import log_sigmoid
from emroute.backend import Array, namespace
from emroute.capsule import affine_poses, compose_poses
from emroute.errors import InputError
from emroute.nn.layer import Layer, Where
from emroute.nn.sizes import check_counts

__all__ = ["ObjectCapsules", "Objects"]

_LEAST_SCALE = 0.01


class Objects(NamedTuple):
    """K objects in each example, each with N votes for parts."""

    logits: Array
    """``(B, K)``: of their presence."""
    log_weights: Array
    """``(B, K, N)``: logarithm of the presence of an object times that of its vote."""
    poses: Array
    """``(B, K, 2, 3)``."""
    votes: Array
    """``(B, K, N, 2, 3)``: poses of the parts."""
    scales: Array
    """``(B, K, N)``: standard deviations of the parts about the votes."""
    changes: Array
    """``(B, K, N, 6)``: what is particular to this example in where parts are in an object."""

    @property
    def presence(self) -> Array:
        """``(B, K)``: as the sparsity losses take it, that of the most present vote."""
        xp = namespace(self.log_weights)
        return xp.max(xp.exp(self.log_weights), axis=-1)


class ObjectCapsules(Layer):
    """Objects that see the features of an example, and vote for the poses of their parts.

    Where a part is in its object is learned once, and changed a little for each example.

    Parameters
    ----------
    n_objects, n_votes
        K objects, and for how many parts each votes.
    in_features
        Entries of a feature.
    code_features, hidden_features
        Entries of what is known about an object, and of the hidden layers. Objects share no weights.
    similarity
        Poses have one scale and no shear.

    References
    ----------
    Kosiorek, A. R., Sabour, S., Teh, Y. W. and Hinton, G. E. (2019). Stacked capsule autoencoders. NeurIPS. Section
    2.3.
    """

    static: Any
    settings = ("similarity",)

    def __init__(
        self,
        n_objects: int,
        n_votes: int,
        in_features: int,
        *,
        code_features: int = 32,
        hidden_features: int = 128,
        similarity: bool = False,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(n_objects=n_objects, n_votes=n_votes, in_features=in_features)
        check_counts(code_features=code_features, hidden_features=hidden_features)
        self.n_votes, self.similarity = n_votes, bool(similarity)
        sizes = {
            "seen": (in_features, hidden_features),
            "code": (hidden_features, code_features),
            "told": (code_features, hidden_features),
            "change": (hidden_features, 6 * n_votes),
            "object": (hidden_features, 7 + 2 * n_votes),
        }
        for name, (n_in, n_out) in sizes.items():
            start = n_in**-0.5 * (0.1 if name in ("change", "object") else 1.0)  # poses start where tanh is steep
            self._parameter(f"{name}_weight", (n_objects, n_in, n_out), start, **where)
            self._parameter(f"{name}_bias", None if name == "change" else (n_objects, n_out), 0.0, **where)
        self._parameter("static", (n_objects, n_votes, 6), 0.1, **where)

    def _affine(self, name: str, x: Array) -> Array:
        """Each object's own linear layer, of ``(B, K, in)``."""
        weight, bias = self._array(getattr(self, f"{name}_weight")), self._array(getattr(self, f"{name}_bias"))
        found = namespace(x).matmul(x[..., None, :], weight)[..., 0, :]
        return found if bias is None else found + bias

    def forward(self, features: Array, noise: tuple[Array, Array] | None = None) -> Objects:
        """Take features ``(B, K, in_features)`` to `Objects`.

        `noise` is added to the logits of objects ``(B, K)`` and of votes ``(B, K, N)``: in training, uniform between -2
        and 2. (The authors' code adds it in tests as well.)
        """
        if len(features.shape) != 3 or features.shape[1] != self.static.shape[0]:
            k = self.static.shape[0]
            raise InputError(f"features have shape {tuple(features.shape)}, expected (B, {k}, in_features)")
        xp, relu, n = namespace(features), self._functions["relu"], self.n_votes
        code = self._affine("code", relu(self._affine("seen", features)))
        hidden = relu(self._affine("told", code))
        changes = xp.reshape(self._affine("change", hidden), (*hidden.shape[:2], n, 6))
        found = self._affine("object", hidden)
        logits, of_votes, scales = found[..., 6], found[..., 7 : 7 + n], found[..., 7 + n :]
        if noise is not None:
            logits, of_votes = logits + noise[0], of_votes + noise[1]
        poses = affine_poses(found[..., :6], similarity=self.similarity)
        parts = affine_poses(self._array(self.static) + changes, similarity=self.similarity)
        log_weights = log_sigmoid(logits)[..., None] + log_sigmoid(of_votes)
        spread = -log_sigmoid(-(scales + 0.5)) + _LEAST_SCALE  # softplus
        return Objects(logits, log_weights, poses, compose_poses(poses[..., None, :, :], parts), spread, changes)
