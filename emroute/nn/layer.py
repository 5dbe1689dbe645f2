"""What a layer is in whichever framework: its text is written once, and a framework adds what is its own.

`emroute.nn.vector`, `emroute.nn.matrix` and `emroute.nn.networks` hold a class a layer, with its arguments, its checks
and its call into `emroute.capsule`. The class of the same name in a framework has that one and the framework's own
`Layer` as its bases: the latter makes weights, and says how images are laid out.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

from emroute._texts import joined
from emroute.backend import Array
from emroute.nn.settings import Configurable
from emroute.nn.sizes import Window

__all__ = ["Layer", "Where", "complete"]

_Class = TypeVar("_Class", bound=type)


class Where(TypedDict, total=False):
    """How weights are made: a layer takes those of these that its framework's own layers take."""

    device: Any
    dtype: Any
    param_dtype: Any
    rngs: Any


class Layer(Configurable):
    """A layer without its framework, whose `Layer` defines what is left open here."""

    channel_axis: ClassVar[int]
    """Axis of the channels in images, 1 in ``(B, C, h, w)`` and 3 in ``(B, h, w, C)``."""
    _functions: ClassVar[Mapping[str, Callable[[Array], Array]]]
    """``"relu"``, and the last activations of a decoder."""
    _ones: ClassVar[Callable[..., Any]]
    """The framework's initializer by ones."""

    def __init__(self, **where: Unpack[Where]) -> None:
        super().__init__()

    def _parameter(self, name: str, shape: Sequence[int] | None, start: Any, **where: Unpack[Where]) -> None:
        """Make a parameter of a name, or none; it starts as normal numbers of a deviation, or as a function says."""
        raise NotImplementedError

    def _array(self, parameter: Any) -> Array | None:
        """Return what a parameter holds, None for none."""
        raise NotImplementedError

    def _promoted(self, *arrays: Array) -> Sequence[Array]:
        """Return arrays in the dtype of computations."""
        raise NotImplementedError

    def _einsum(self, equation: str, *arrays: Array) -> Array:
        """Multiply and add as votes need it."""
        raise NotImplementedError

    def _convolution(
        self, n_in: int, n_out: int, window: Window, bias: bool = True, groups: int = 1, **where: Unpack[Where]
    ) -> Any:
        """Return a convolution of images, of as many groups of channels."""
        raise NotImplementedError

    def _batch_norm(self, n: int, **where: Unpack[Where]) -> Any:
        """Return a batch normalization of `n` channels, with Keras' constants."""
        raise NotImplementedError

    def _linears(self, sizes: Sequence[int], **where: Unpack[Where]) -> Any:
        """Return layers that see everything, from each size to the next."""
        raise NotImplementedError


def complete(cls: _Class) -> _Class:
    """Give a framework's class the text and the signature that it shares with its like, with what it adds to them."""
    shared, own = [base.__init__ for base in cls.__mro__ if "__init__" in vars(base)][:2]
    given, added = (inspect.signature(init).parameters.values() for init in (shared, own))
    parameters = [parameter for parameter in given if parameter.kind is not parameter.VAR_KEYWORD]
    parameters += [parameter for parameter in added if parameter.kind is parameter.KEYWORD_ONLY]

    @functools.wraps(shared)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        shared(self, *arguments, **options)

    signature = inspect.signature(shared).replace(parameters=parameters)
    init.__signature__ = signature  # pyright: ignore[reportAttributeAccessIssue]
    cls.__init__ = init
    cls.__doc__ = joined(cls.__bases__[0].__doc__, cls.__doc__)
    return cls
