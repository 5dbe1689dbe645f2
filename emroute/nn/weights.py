"""Weights on disk: a safetensors file in Torch's names and layouts, with the arguments that build its network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emroute.errors import InputError

__all__ = ["network_arguments", "read_network", "write_network"]

_KEY = "emroute.network"
_NOT_SAVED = {"self", "device", "dtype", "param_dtype", "rngs"}


def network_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a constructor, from its `locals`, that make it the network that it is."""
    return {name: value for name, value in given.items() if name not in _NOT_SAVED and not name.startswith("_")}


def write_network(path: str | os.PathLike[str], kind: str, arguments: Mapping[str, Any], tensors: Any) -> None:
    """Write a network whole, or not at all.

    Raises
    ------
    InputError
        If an argument is a function, which no file holds.
    """
    from safetensors.numpy import save_file

    try:
        text = json.dumps({"kind": kind, "arguments": dict(arguments)})
    except TypeError:
        bad = next(name for name, value in arguments.items() if callable(value))
        raise InputError(f"{bad} is a function, which cannot be saved: give its values as a sequence") from None
    draft = Path(path).with_name(Path(path).name + ".part")
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, draft, {_KEY: text})
    draft.replace(path)


def read_network(path: str | os.PathLike[str], kinds: Mapping[str, Any]) -> tuple[str, dict[str, Any], Any]:
    """Return which network is in a file, its arguments and its tensors by name.

    Raises
    ------
    InputError
        If the file is damaged, or holds none of these networks.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except SafetensorError as error:
        raise InputError(f"{path} is not a sound safetensors file: {error}") from None
    if text is None or (found := json.loads(text))["kind"] not in kinds:
        raise InputError(f"{path} holds no network of emroute, which are {', '.join(kinds)}")
    return found["kind"], found["arguments"], tensors
