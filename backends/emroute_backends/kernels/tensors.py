"""The forms for Torch's tensors: those of the host share NumPy's forms, with which they share memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd.forward_ad import unpack_dual

from emroute_backends.kernels import numba, triton
from emroute_backends.numpy import holding_threads

__all__ = ["on_tensors"]

Array = Any

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class _OnHost:
    """A form for tensors of the host."""

    form: numba.HostForm

    @property
    def back(self) -> str:
        """The name of its own way back, or nothing."""
        return self.form.back

    def takes(self, *args: Any) -> bool:
        if _differentiated(args) and not self.form.back:
            return False
        return args[0].dtype in _DTYPES and self.form.takes(*map(_shared, args))

    def pays(self, *args: Any) -> bool:
        return self.form.pays(*args)

    def cheap(self, *args: Any) -> bool:
        return self.form.cheap(*args)

    def run(self, _: Callable[..., Any], *args: Any) -> tuple[Array, ...]:
        with holding_threads(torch.get_num_threads()):
            return tuple(map(torch.from_numpy, self.form(*map(_shared, args))))

    def gradients(self, args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
        with holding_threads(torch.get_num_threads()):
            found = self.form.gradients(tuple(map(_shared, args)), tuple(map(_shared, of_results)))
        return tuple(None if x is None else torch.from_numpy(x) for x in found)


@dataclass(frozen=True)
class _OnTensors:
    """Forms of one function, by the kind of device whose tensors they take."""

    forms: dict[str, _OnHost | triton.DeviceForm]

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of devices."""
        return tuple(self.forms)

    def takes(self, *args: Any) -> bool:
        tensors = _tensors(args)
        plain = all(type(x) in _PLAIN and x.layout == torch.strided and x.device == args[0].device for x in tensors)
        if not plain or args[0].device.type not in self.forms or retrieve_all_functorch_interpreters():
            return False
        if any(unpack_dual(x).tangent is not None for x in tensors):  # forward mode
            return False
        return self._form(args).takes(*args)

    def pays(self, *args: Any) -> bool:
        return self._form(args).pays(*args)

    def cheap(self, *args: Any) -> bool:
        return args[0].device.type in self.forms and self._form(args).cheap(*args)

    def run(self, text: Callable[..., Any], *args: Any) -> tuple[Array, ...]:
        form = self._form(args)
        return _Differentiated.apply(form, text, *args) if _differentiated(args) else form.run(text, *args)

    def _form(self, args: tuple[Any, ...]) -> Any:
        return self.forms[args[0].device.type]


class _Differentiated(torch.autograd.Function):
    """A form and its way back; without one, or where that is itself differentiated, the way back is the text's."""

    @staticmethod
    def forward(ctx: Any, form: Any, text: Callable[..., Any], *args: Any) -> tuple[Array, ...]:
        ctx.form, ctx.text = form, text
        ctx.rest = [None if isinstance(x, torch.Tensor) else x for x in args]
        ctx.save_for_backward(*(x if isinstance(x, torch.Tensor) else None for x in args))
        return form.run(text, *args)

    @staticmethod
    def backward(ctx: Any, *of_results: Array) -> tuple[Array | None, ...]:
        args = tuple(x if other is None else other for x, other in zip(ctx.saved_tensors, ctx.rest, strict=True))
        wanted = ctx.needs_input_grad[2:]
        found = ctx.form.gradients(args, of_results) if ctx.form.back and not torch.is_grad_enabled() else None
        if found is not None:
            return None, None, *(x if want else None for x, want in zip(found, wanted, strict=True))
        further = torch.is_grad_enabled()
        with torch.enable_grad():
            # one argument may be made of another; aliases are not, so that derivatives are partial
            own = tuple(x.view_as(x) if isinstance(x, torch.Tensor) else x for x in args)
            sources = [x for x, want in zip(own, wanted, strict=True) if want]
            results = ctx.text(*own)
            found = iter(
                torch.autograd.grad(results, sources, of_results, create_graph=further, materialize_grads=True)
            )
        return None, None, *(next(found) if want else None for want in wanted)


def _tensors(args: tuple[Any, ...]) -> list[Array]:
    return [x for x in args if isinstance(x, torch.Tensor)]


def _differentiated(args: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in _tensors(args))


def _shared(x: Any) -> Any:
    return x.detach().numpy() if isinstance(x, torch.Tensor) else x


def on_tensors() -> dict[str, _OnTensors]:
    """Forms by the names of their functions; where Triton's are for the host, they alone."""
    found: dict[str, dict[str, Any]] = {}
    if triton.kind() != "cpu":
        found = {name: {"cpu": _OnHost(form)} for name, form in numba.forms().items()}
    for name, form in triton.forms().items():
        found.setdefault(name, {})[triton.kind()] = form
    return {name: _OnTensors(each) for name, each in found.items()}
