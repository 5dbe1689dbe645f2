"""Weights on disk: a safetensors file in Torch's names and layouts, with the arguments that build its network."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from emroute._files import whole
from emroute.errors import InputError, MissingDependencyError
from emroute.nn.settings import plain

__all__ = [
    "NetworkFile",
    "build",
    "check_tensors",
    "describe_network",
    "network_arguments",
    "read_network",
    "saved_arguments",
    "write_network",
]

_KEY = "emroute.network"
_FLOATS = "F16", "BF16", "F32", "F64"
_NOT_SAVED = {"self", "device", "dtype", "param_dtype", "rngs", "where"}


class NetworkFile(NamedTuple):
    """What a file holds."""

    make: Any
    """What makes the network."""
    arguments: dict[str, Any]
    """With which."""
    settings: dict[str, dict[str, Any]]
    """That were changed afterwards, by layer."""
    tensors: dict[str, Any]
    """Weights by name."""


def network_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor, from its `locals`, that make it the network that it is."""
    mine = {name: value for name, value in given.items() if name not in _NOT_SAVED and not name.startswith("_")}
    return {name: plain(value) for name, value in mine.items()}


def saved_arguments(network: Any, networks: Mapping[str, type]) -> dict[str, Any]:
    """Return the arguments of a network that a file can hold: all but functions, whose effect is in its settings.

    Raises
    ------
    InputError
        If it is none of some networks.
    """
    kind = type(network).__name__
    if networks.get(kind) is not type(network):
        raise InputError(f"got {type(network).__module__}.{kind}, expected one of {', '.join(networks)} of emroute")
    return {name: value for name, value in network.arguments.items() if not callable(value)}


def describe_network(network: Any, arguments: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> str:
    """Return of which kind a network is, what makes it, and what was set afterwards, as a file tells it."""
    found = {"kind": type(network).__name__, "arguments": arguments}
    return json.dumps(found | {"settings": settings} if settings else found)


def write_network(path: str | os.PathLike[str], description: str, tensors: Mapping[str, Any], framework: str) -> None:
    """Write a network whole, or not at all: what was there before stays until all is written.

    Parameters
    ----------
    path
        Of the file.
    description
        Of `describe_network`.
    tensors
        Its weights, contiguous arrays of the framework by Torch's names, in Torch's layouts.
    framework
        A module of safetensors: ``"torch"`` or ``"flax"``.

    Raises
    ------
    MissingDependencyError
        If safetensors is not installed.
    OSError
        If the file cannot be written.
    """
    data = _safetensors(framework).save(dict(tensors), {_KEY: description})
    with whole(path) as draft:
        draft.write_bytes(data)  # its own `save_file` makes files that nobody else may read


def read_network(path: str | os.PathLike[str], networks: Mapping[str, Any], framework: str) -> NetworkFile:
    """Return which of some networks is in a file, its arguments and settings, and its tensors by name.

    Raises
    ------
    InputError
        If the file is damaged, or holds none of these networks.
    MissingDependencyError
        If safetensors is not installed.
    OSError
        If the file cannot be read.
    """
    module = _safetensors()
    try:
        with module.safe_open(path, framework) as file:
            told = _described(path, (file.metadata() or {}).get(_KEY, ""), networks)
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118, it is no mapping
            if other := [f"{name} has dtype {kind}" for name, kind in kinds.items() if kind not in _FLOATS]:
                raise InputError(f"{path} has weights other than {', '.join(_FLOATS)}: {'; '.join(sorted(other))}")
            return NetworkFile(*told, {name: file.get_tensor(name) for name in kinds})
    except module.SafetensorError as error:
        raise InputError(f"{path} is not a sound safetensors file: {error}") from None


def _described(path: str | os.PathLike[str], text: str, networks: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    try:
        found = json.loads(text)
        settings = {name: dict(values) for name, values in found.get("settings", {}).items()}
        return networks[found["kind"]], dict(found["arguments"]), settings
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise InputError(f"{path} holds no network of emroute, which are {', '.join(networks)}") from None


def build(path: str | os.PathLike[str], make: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Return the network that a file's arguments make.

    Raises
    ------
    InputError
        If they make none.
    """
    try:
        return make(**arguments)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:  # sizes may be any numbers
        raise InputError(f"{path} holds arguments that make no network: {error}") from None


def check_tensors(holder: str | os.PathLike[str], tensors: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    """Raise `InputError` unless what a file or a network holds has the names and shapes of `shapes`."""
    wrong = [f"{name} is missing" for name in shapes.keys() - tensors.keys()]
    wrong += [f"{name} is not of this network" for name in tensors.keys() - shapes.keys()]
    for name in shapes.keys() & tensors.keys():
        found, expected = tuple(tensors[name].shape), tuple(shapes[name])
        if found != expected:
            wrong.append(f"{name} has shape {found}, expected {expected}")
    if wrong:
        raise InputError(f"{holder} does not hold the weights that its arguments make: {'; '.join(sorted(wrong))}")


def _safetensors(name: str = "") -> Any:
    try:
        return importlib.import_module(f"safetensors.{name}".rstrip("."))
    except ModuleNotFoundError:
        raise MissingDependencyError("weights are kept in safetensors: `pip install safetensors`") from None
