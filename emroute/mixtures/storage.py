"""Arrays and a header in ``.npz`` or ``.safetensors`` files; nothing is pickled."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._files import whole
from emroute.arrays.creation import itemsize
from emroute.backend import Array
from emroute.errors import InputError, MissingDependencyError, tell

__all__ = ["check_suffix", "kind_of", "loaded", "named", "read", "write"]


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


def kind_of(path: Path) -> str:
    """Return the class of what is saved in a file; an empty string where it is nothing of ours."""
    check_suffix(path)
    try:
        return str(json.loads(read(path)[0])["kind"])
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return ""


def loaded(arrays: list[np.ndarray], like: Array | None) -> list[Array]:
    """Carry arrays to the library and device of `like` in their own dtype; to none where it is None."""
    if like is None:
        return list(arrays)
    backend = backends.get(like)
    xp = backend.namespace(like)
    whole_number = xp.zeros_like(like, dtype=xp.int32)  # beside which floating numbers keep their dtype
    carried = [backend.from_numpy(x, whole_number) for x in arrays]
    wide = [y for x, y in zip(arrays, carried, strict=True) if x.dtype == np.float64]
    if any(itemsize(y) < 8 for y in wide):
        tell(["the file holds float64, which the library has only if it is enabled; it is loaded in float32"])
    return carried


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


def named(params: Any) -> dict[str, Array]:
    """Return arrays of nested NamedTuples by dotted name, in order."""
    found = {}
    for name, value in params._asdict().items():
        if value is None:
            continue
        inner = named(value) if isinstance(value, tuple) else {"": value}
        found |= {f"{name}.{below}".rstrip("."): x for below, x in inner.items()}
    return found
