"""The examples' shifts, crops and affine maps: known images go where geometry says."""

import numpy as np
import pytest

import warps
from emroute.errors import InputError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def whole(images: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Moved by slices."""
    moved = np.zeros_like(images)
    h, w = images.shape[1:3]
    moved[:, max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = images[
        :, max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)
    ]
    return moved


@pytest.fixture(params=["uint8", "float32"])
def pictures(request, rng) -> np.ndarray:
    return rng.integers(0, 256, (300, 9, 9, 2)).astype(request.param)


def same(result, expected):
    np.testing.assert_allclose(result, expected, atol=1e-4 if expected.dtype == np.float32 else 0, strict=True)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 5])
def test_a_quarter_turn_is_rot90(pictures, turns):
    same(warps.rotate(pictures, 90.0 * turns), np.rot90(pictures, turns, axes=(1, 2)))


def test_each_image_has_its_own_angle(pictures):
    turned = warps.rotate(pictures, 90.0 * np.arange(300))
    same(turned, np.concatenate([np.rot90(picture[None], i, axes=(1, 2)) for i, picture in enumerate(pictures)]))


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (2, -3), (-1, 4), (20, 0)])
def test_whole_pixels_move_as_slices(pictures, dy, dx):
    expected = whole(pictures, dy, dx) if dy < 9 else np.zeros_like(pictures)
    same(warps.translate(pictures, dy, dx), expected)


def test_half_a_pixel_is_the_mean_of_two():
    row = np.array([0, 10, 20, 0], np.float32).reshape(1, 1, 4, 1)
    np.testing.assert_array_equal(warps.translate(row, 0, 0.5).ravel(), [0, 5, 15, 10])


def test_scale_one_is_identity_and_two_halves_the_frame(pictures):
    same(warps.scale(pictures, 1), pictures)
    same(warps.scale(pictures, 2.0)[:, ::2, ::2], pictures[:, 2:7, 2:7])
    same(warps.scale(pictures, np.where(np.arange(300) % 2, 2.0, 1.0))[::2], pictures[::2])
    with pytest.raises(InputError, match="positive"):
        warps.scale(pictures, 0)


def test_shift_moves_each_image_by_its_own_whole_pixels(pictures, rng):
    moved = warps.shift(pictures, rng, 2)
    assert moved.dtype == pictures.dtype
    candidates = {(dy, dx): whole(pictures, dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    found = [[move for move, all_ in candidates.items() if (moved[i] == all_[i]).all()] for i in range(300)]
    assert all(found)
    assert {move for moves in found for move in moves} == set(candidates)


def test_shift_keeps_the_mass_of_what_stays_inside(pictures, rng):
    framed = np.pad(pictures, ((0, 0), (4, 4), (4, 4), (0, 0)))
    np.testing.assert_array_equal(warps.shift(framed, rng, 4).sum((1, 2, 3)), framed.sum((1, 2, 3)))
    np.testing.assert_array_equal(warps.shift(pictures, rng, 0), pictures)


def test_norb_is_averaged_normalised_and_cropped(rng):
    images = rng.integers(0, 256, (20, 96, 96, 2), dtype=np.uint8)
    small = images.reshape(20, 48, 2, 48, 2, 2).mean((2, 4))
    normal = (small - small.mean((1, 2, 3), keepdims=True)) / small.std((1, 2, 3), keepdims=True)
    same_size = warps.preprocess_norb(images, crop=48)
    assert same_size.dtype == np.float32
    np.testing.assert_allclose(same_size, normal, atol=1e-4)
    np.testing.assert_allclose(warps.preprocess_norb(images), normal[:, 8:40, 8:40], atol=1e-4)
    np.testing.assert_allclose(warps.preprocess_norb(same_size), warps.preprocess_norb(images), atol=1e-4)
    random = warps.preprocess_norb(images, rng=rng)
    windows = np.lib.stride_tricks.sliding_window_view(normal, (32, 32), (1, 2))[..., 0, :, :]  # the left channel
    assert all(np.isclose(windows[i], random[i, ..., 0], atol=1e-4).all((-1, -2)).any() for i in range(20))


def test_norb_brightness_and_contrast_vary_in_training_only(rng):
    images = rng.integers(0, 256, (200, 8, 8, 2), dtype=np.uint8)
    options = {"size": 4, "crop": 4, "brightness": 0.5, "contrast": 0.2}
    made, plain = warps.preprocess_norb(images, rng=rng, **options), warps.preprocess_norb(images, **options)
    np.testing.assert_allclose(plain.std((1, 2, 3)), 1, atol=1e-4)
    assert 0.8 - 1e-4 < made.std((1, 2, 3)).min() < made.std((1, 2, 3)).max() < 1.2 + 1e-4
    assert 0.4 < np.abs(made.mean((1, 2, 3))).max() < 0.5 + 1e-4
    assert made.dtype == np.float32


def test_norb_of_one_grey_is_zero():
    assert not warps.preprocess_norb(np.full((1, 96, 96, 2), 7, np.uint8)).any()


@pytest.mark.parametrize("options", [{"size": 50}, {"size": 16}])
def test_norb_sizes_that_cannot_be_are_refused(options):
    with pytest.raises(InputError, match="cannot be averaged down"):
        warps.preprocess_norb(np.zeros((1, 96, 96, 2), np.uint8), **options)
