"""Layers without a framework: each is written once, and a framework adds what is specific to it.

`emroute.nn.vector`, `emroute.nn.matrix` and `emroute.nn.networks` have a class per layer, with its arguments, its
checks and its call into `emroute.capsule`. The class of the same name in a framework derives from it and from the
framework's own `Layer`, which makes weights and defines the layout of images.
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
    """How weights are made: the options among these that layers of the framework take."""

    device: Any
    dtype: Any
    param_dtype: Any
    rngs: Any


class Layer(Configurable):
    """A layer without a framework, whose `Layer` defines the missing methods."""

    channel_axis: ClassVar[int]
    """Axis of the channels in images, 1 in ``(B, C, h, w)`` and 3 in ``(B, h, w, C)``."""
    _functions: ClassVar[Mapping[str, Callable[[Array], Array]]]
    """The activation functions by name: ``"relu"``, and the last ones of a decoder."""
    _ones: ClassVar[Callable[..., Any]]
    """The framework's initializer with ones."""

    def __init__(self, **where: Unpack[Where]) -> None:
        super().__init__()

    def _parameter(self, name: str, shape: Sequence[int] | None, start: Any, **where: Unpack[Where]) -> None:
        """Make a parameter with a name, or none, from normal numbers of a given deviation or by a function."""
        raise NotImplementedError

    def _array(self, parameter: Any) -> Array | None:
        """Return the value of a parameter, or None if there is none."""
        raise NotImplementedError

    def _promoted(self, *arrays: Array) -> Sequence[Array]:
        """Return arrays in the dtype of computations."""
        raise NotImplementedError

    def _einsum(self, equation: str, *arrays: Array) -> Array:
        """Multiply and add, as needed for votes."""
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
        """Return dense layers, from each size to the next."""
        raise NotImplementedError


def complete(cls: _Class) -> _Class:
    """Give a class of a framework the docstring and signature of its base class, with its own additions."""
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
