"""Arrays and a header in ``.npz`` or ``.safetensors`` files; nothing is pickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from emroute._files import whole
from emroute.errors import InputError, MissingDependencyError

__all__ = ["check_suffix", "read", "write"]


def write(path: Path, header: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name. A file that is there already stays whole until the new one is."""
    check_suffix(path)
    # np.ascontiguousarray makes scalars 1-d
    arrays = {name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()}
    with whole(path) as draft:
        if path.suffix == ".safetensors":
            draft.write_bytes(_safetensors().numpy.save(arrays, {"emroute": header}))
        else:
            np.savez(draft, allow_pickle=False, emroute=np.asarray(header), **arrays)


def read(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Return the header, and the arrays by name."""
    if path.suffix == ".safetensors":
        module = _safetensors()
        try:
            arrays = module.numpy.load_file(path)
        except module.SafetensorError as error:
            raise ValueError(error) from None
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return header["__metadata__"]["emroute"], arrays
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
        arrays = dict(file)
    return str(arrays.pop("emroute")), arrays


def check_suffix(path: Path) -> None:
    """Raise `InputError` for a file of another kind."""
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"got suffix {path.suffix!r}, expected '.npz' or '.safetensors'")


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise MissingDependencyError("`.safetensors` files need that package: `pip install safetensors`") from None
    return safetensors
