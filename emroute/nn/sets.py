"""Set transformer: features of a set of vectors, whatever their order (Lee et al. 2019).

    block   y = LN(d * (x + MHA(x, x, x))),   x <- LN(y + MLP(y))
    pool    h = MHA(queries, x, x)

A vector of presence d is attended to with the weight d: log d is added to its logits. (The code of the stacked capsule
autoencoder subtracts 1e32 (1 - d), so that with presences between 0 and 1 all attend to the most present vector alone.)
"""

from __future__ import annotations

from typing import Any, Unpack

from emroute.arrays.functions import safe_log, softmax
from emroute.backend import Array, namespace
from emroute.capsule.attention import layer_norm
from emroute.errors import InputError
from emroute.nn.layer import Layer, Where
from emroute.nn.sizes import check_counts

__all__ = ["SetTransformer"]


class SetTransformer(Layer):
    """Features of a set, one vector for each of some learned queries.

    Parameters
    ----------
    in_features
        Entries of a vector of the set.
    features
        Of the blocks; a multiple of `n_heads`, as `out_features` is.
    out_features, n_queries
        Entries of a feature, and how many there are.
    n_layers, n_heads
        How many blocks, and heads of each attention.

    References
    ----------
    Lee, J., Lee, Y., Kim, J., Kosiorek, A. R., Choi, S. and Teh, Y. W. (2019). Set transformer. ICML. Equations 6 to
    11.
    """

    settings = ("n_heads",)

    def __init__(
        self,
        in_features: int,
        features: int,
        out_features: int,
        n_queries: int,
        *,
        n_layers: int = 3,
        n_heads: int = 1,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_features=in_features, features=features, out_features=out_features, n_queries=n_queries)
        check_counts(n_layers=n_layers, n_heads=n_heads)
        if features % n_heads or out_features % n_heads:
            raise InputError(f"got n_heads={n_heads!r}, of which {features} and {out_features} are no multiples")
        self.n_layers, self.n_heads = n_layers, n_heads
        self._linear("embed", in_features, features, where)
        for block in range(n_layers):
            self._attention(f"block{block}", features, where)
            self._linear(f"block{block}_wide", features, 2 * features, where)
            self._linear(f"block{block}_back", 2 * features, features, where)
            for name in (f"block{block}_norm1", f"block{block}_norm2"):
                self._parameter(f"{name}_gain", (features,), self._ones, **where)
                self._parameter(f"{name}_bias", (features,), 0.0, **where)
        self._linear("outward", features, out_features, where)
        self._parameter("queries", (n_queries, out_features), 1.0, **where)
        self._attention("pool", out_features, where)

    def _linear(self, name: str, n_in: int, n_out: int, where: Where) -> None:
        self._parameter(f"{name}_weight", (n_in, n_out), n_in**-0.5, **where)
        self._parameter(f"{name}_bias", (n_out,), 0.0, **where)

    def _attention(self, name: str, n: int, where: Where) -> None:
        for part in ("query", "key", "value", "out"):
            self._linear(f"{name}_{part}", n, n, where)

    def _of(self, name: str) -> Any:
        return self._array(getattr(self, name))

    def _affine(self, name: str, x: Array) -> Array:
        return namespace(x).matmul(x, self._of(f"{name}_weight")) + self._of(f"{name}_bias")

    def _normalized(self, name: str, x: Array) -> Array:
        return layer_norm(x, self._of(f"{name}_gain"), self._of(f"{name}_bias"))

    def _attend(self, name: str, queries: Array, x: Array, log_presence: Array) -> Array:
        """Multi-head attention of queries ``(B, Q, n)`` to vectors ``(B, M, n)``."""
        xp = namespace(x)

        def heads(part: str, y: Array) -> Array:
            found = self._affine(f"{name}_{part}", y)
            return xp.permute_dims(xp.reshape(found, (*found.shape[:2], self.n_heads, -1)), (0, 2, 1, 3))

        query, key, value = heads("query", queries), heads("key", x), heads("value", x)
        logits = xp.matmul(query, xp.matrix_transpose(key)) / query.shape[-1] ** 0.5
        found = xp.matmul(softmax(logits + log_presence[:, None, None, :]), value)
        return self._affine(f"{name}_out", xp.reshape(xp.permute_dims(found, (0, 2, 1, 3)), queries.shape))

    def forward(self, x: Array, presence: Array | None = None) -> Array:
        """Take sets ``(B, M, in_features)`` of presence ``(B, M)`` to features ``(B, Q, out_features)``."""
        if len(x.shape) != 3:
            raise InputError(f"sets have shape {tuple(x.shape)}, expected (B, M, in_features)")
        xp = namespace(x)
        there: Array = xp.ones_like(x[..., 0]) if presence is None else presence
        logs = safe_log(there)  # of an empty set, all vectors are attended to alike
        log_presence = xp.where(xp.isfinite(xp.max(logs, axis=-1, keepdims=True)), logs, xp.zeros_like(logs))
        x = self._affine("embed", x)
        for block in range(self.n_layers):
            name = f"block{block}"
            x = (x + self._attend(name, x, x, log_presence)) * there[..., None]
            x = self._normalized(f"{name}_norm1", x)
            x = x + self._affine(f"{name}_back", self._functions["relu"](self._affine(f"{name}_wide", x)))
            x = self._normalized(f"{name}_norm2", x)
        x = self._affine("outward", x)
        queries: Any = self._of("queries")
        return self._attend("pool", xp.broadcast_to(queries, (x.shape[0], *queries.shape)), x, log_presence)
