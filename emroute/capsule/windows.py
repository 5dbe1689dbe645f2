"""Index maps between the children of a convolution and its windows, both ways.

A child votes for every parent position whose K x K window contains it, so its assignments are normalized over all
parents at all these positions. Positions of one image are coupled through such children, by one number per child: the
logsumexp of its logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.arrays.functions import logsumexp
from emroute.backend import Array
from emroute.errors import InputError
from emroute.validate import check_choice, check_count

__all__ = ["Windows", "check_windows"]

_CHOICES = ("parents", "window")


@dataclass(frozen=True)
class Windows:
    """The geometry of a convolution, on the host: Q parent positions with S = K * K places each.

    Parameters
    ----------
    height, width
        The size of the grid of children.
    kernel, stride, padding
        The parameters of the convolution.
    coupled
        Whether a child is shared among all its parents, or separately in each window.
    """

    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    coupled: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of parents."""
        rows, columns = ((n + 2 * self.padding - self.kernel) // self.stride + 1 for n in (self.height, self.width))
        return rows, columns

    @property
    def n_children(self) -> int:
        """The number of child positions; also the index that stands for padding."""
        return self.height * self.width

    @cached_property
    def children(self) -> np.ndarray:
        """The child position in each place of each window, ``(Q, S)``."""
        rows, columns = (np.arange(n) * self.stride - self.padding for n in self.grid)
        inside = np.arange(self.kernel)
        y = (rows[:, None] + inside)[:, None, :, None]
        x = (columns[:, None] + inside)[None, :, None, :]
        real = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        return np.where(real, y * self.width + x, self.n_children).reshape(-1, self.kernel**2)

    @cached_property
    def places(self) -> np.ndarray:
        """Where each child is among the Q * S places, ``(n_children, most)``, padded with Q * S."""
        flat = self.children.ravel()
        order = np.argsort(flat, kind="stable")
        count = np.bincount(flat, minlength=self.n_children + 1)
        before = np.arange(flat.size) - np.repeat(np.cumsum(count) - count, count)
        table = np.full((self.n_children + 1, max(1, *count)), flat.size)
        table[flat[order], before] = order
        table = table[: self.n_children, : max(1, *count[:-1])]
        table[count[:-1] == 0, 0] = 0  # unused sums; any valid place avoids a warning about log 0
        return table

    def first_norm(self, n_types: int) -> np.ndarray:
        """The logarithm of the number of parents that share a child at the start, ``(Q, S)``; infinite on padding."""
        count = np.bincount(self.children.ravel(), minlength=self.n_children + 1).astype(float)
        count = count if self.coupled else np.ones_like(count)
        count[-1] = np.inf
        return np.log(n_types * np.maximum(count, 1))[self.children]

    def index(self, images: int, like: Array) -> Array:
        """Rows of children, those of all images followed by one of padding, ``(images * Q, S)``."""
        xp, backend = backends.namespace(like), backends.get(like)
        children = backend.from_numpy(self.children, like)
        real = backend.from_numpy(self.children < self.n_children, like)
        # counted by the library, not on the host: in an exported graph the number of images is a symbol
        first = (xp.cumulative_sum(xp.broadcast_to(xp.ones_like(children[:1, :1]), (images, 1)), axis=0) - 1)[..., None]
        rows = xp.where(real, children + first * self.n_children, images * self.n_children)
        return xp.reshape(rows, (-1, self.kernel**2))

    def norm(self, log_sums: Array) -> Array:
        """Return logsumexps over all parents of a child, from those over each window, ``(b, Q, S, I)``."""
        xp, backend = backends.namespace(log_sums), backends.get(log_sums)
        b, q, s, i = log_sums.shape
        if not self.coupled:
            return log_sums + constant(np.where(self.children < self.n_children, 0, np.inf)[..., None], like=log_sums)
        flat = xp.reshape(log_sums, (b, q * s, i))
        infinite = xp.full_like(flat[:, :1, :], float("inf"))
        places = backend.from_numpy(self.places.ravel(), log_sums)
        found = xp.take(xp.concat([flat, -infinite], axis=1), places, axis=1)
        by_child = logsumexp(xp.reshape(found, (b, *self.places.shape, i)), axis=2)
        index = backend.from_numpy(self.children.ravel(), log_sums)
        return xp.reshape(xp.take(xp.concat([by_child, infinite], axis=1), index, axis=1), (b, q, s, i))


@lru_cache(maxsize=64)
def _windows(*geometry: Any) -> Windows:
    return Windows(*geometry)


def check_windows(height: int, width: int, kernel: int, stride: int, padding: int, normalize_over: str) -> Windows:
    """Return the geometry, or raise `InputError`."""
    check_choice("normalize_over", normalize_over, _CHOICES)
    check_count("stride", stride)
    check_count("padding", padding, 0)
    for axis, size in (("h", height), ("w", width)):
        if size + 2 * padding < kernel:
            raise InputError(f"the kernel of {kernel} is larger than axis {axis}, {size} with a padding of {padding}")
    if padding >= kernel:
        raise InputError(f"got padding={padding} for a kernel of {kernel}: the outermost parents would see no child")
    return _windows(height, width, kernel, int(stride), int(padding), normalize_over == "parents")
