"""Coordinates that class capsules are told: the tutorials', the paper's, or one's own."""

import numpy as np
import pytest

from emroute import capsule
from emroute.errors import InputError
from tests.helpers import rejected
from tests.networks import FRAMEWORKS, TORCH

PAPER = (8.5 / 28, 12.5 / 28, 16.5 / 28)
"""Centres of the receptive fields of the last layer before the classes, in images of 28 pixels."""


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


def test_places_are_those_given(lib):
    votes = np.random.default_rng(0).normal(size=(2, 3, 4, 2, 5, 16))
    rows, columns = (0.1, 0.2, 0.4), (-1.0, 0.0, 3.0, 7.0)
    both = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
    for coordinates in ((rows, columns), [list(rows), np.asarray(columns)], both, both.tolist()):
        found = capsule.coordinate_addition(lib.asarray(votes), entries=(3, 7), coordinates=coordinates)
        added = lib.to_numpy(found) - votes
        np.testing.assert_allclose(added[..., 3], np.broadcast_to(both[:, :, :1, None, None][..., 0], added.shape[:-1]))
        np.testing.assert_allclose(added[..., 7], np.broadcast_to(both[:, :, 1:, None, None][..., 0], added.shape[:-1]))
        assert not np.delete(added, (3, 7), axis=-1).any()


def test_the_grid_is_the_default(lib):
    votes = lib.asarray(np.zeros((2, 4, 1, 1, 4)))
    grid = (0.25, 0.75), (0.125, 0.375, 0.625, 0.875)
    found, default = (capsule.coordinate_addition(votes, coordinates=places) for places in (grid, None))
    np.testing.assert_array_equal(lib.to_numpy(found), lib.to_numpy(default))


def test_class_routing_takes_them(lib):
    rng = np.random.default_rng(0)
    poses, activations = rng.normal(size=(2, 2, 3, 2, 2, 2)), rng.uniform(0.2, 0.8, size=(2, 2, 3, 2))
    transforms, zeros = rng.normal(size=(2, 4, 2, 2)), np.zeros(4)
    where = {"entries": (1, 3), "coordinates": ((0.3, 0.6), (1.0, 2.0, 4.0))}
    arrays = [lib.asarray(x) for x in (poses, activations, transforms, zeros, zeros)]
    found = capsule.class_em_routing(*arrays, **where)
    votes = np.stack([capsule.vote(x, transforms) for x in poses.reshape(12, 2, 2, 2)]).reshape(2, 2, 3, 2, 4, 4)
    votes = capsule.coordinate_addition(votes, **where).reshape(2, 12, 4, 4)
    expected = capsule.em_routing(votes, activations.reshape(2, 12), zeros, zeros)
    np.testing.assert_allclose(lib.to_numpy(found.poses), expected.poses, rtol=1e-9)


@pytest.mark.parametrize(
    "coordinates",
    [
        ((0.1, 0.2), (0.1,)),
        ((0.1,), (0.1, 0.2), (0.3,)),
        3.0,
        "paper",
        np.zeros((3, 2, 2)),
        ((0.1, np.nan), (0.0, 1, 2)),
    ],
    ids=str,
)
def test_places_that_do_not_fit_are_refused(lib, coordinates):
    votes = lib.asarray(np.zeros((2, 3, 1, 1, 4)))
    rejected(lambda: capsule.coordinate_addition(votes, coordinates=coordinates), InputError, "coordinates=", "2", "3")


def test_the_papers_have_a_name(framework):
    network = framework.outline("MatrixCapsNet", 1, 10, 28, widths=(3, 2, 2, 2), coordinates="paper")
    np.testing.assert_allclose(network.classes.coordinates, (PAPER, PAPER))
    np.testing.assert_allclose(PAPER, (0.304, 0.446, 0.589), atol=5e-4)
    assert network.classes.entries == (3, 7)
    network = framework.outline(
        "MatrixCapsNet", 1, 10, (32, 17), widths=(3, 2, 2, 2), coordinates="paper", entries=(0, 5)
    )
    rows, columns = network.classes.coordinates
    np.testing.assert_allclose(rows, [(8.5 + 4 * place) / 32 for place in range(4)])
    np.testing.assert_allclose(columns, [0.5])
    assert network.classes.entries == (0, 5)
    default = framework.outline("MatrixCapsNet", 1, 10, 28, widths=(3, 2, 2, 2))
    assert (default.classes.coordinates, default.classes.entries) == (None, (0, 1))


def test_receptive_fields_are_where_they_are_said_to_be():
    """Pixels that reach a position of the last grid have their centre at its coordinates."""
    network = TORCH.make("MatrixCapsNet", 1, 3, 28, widths=(4, 2, 2, 2), coordinates="paper", n_iter=1)
    import torch

    images = torch.rand(1, 1, 28, 28, generator=torch.Generator().manual_seed(0), requires_grad=True)
    poses, _ = network.grid(images)
    for row, column in ((0, 0), (1, 2), (2, 1)):
        (slope,) = torch.autograd.grad(poses[0, row, column].square().sum(), images, retain_graph=True)
        seen = np.argwhere(slope[0, 0].abs().numpy() > 0)
        centre = (seen.min(0) + seen.max(0) + 1) / 2 / 28
        np.testing.assert_allclose(centre, (PAPER[row], PAPER[column]))


def test_they_come_back_from_a_file(framework, tmp_path):
    options = {"image_size": 21, "widths": (3, 2, 2, 2), "n_classes": 3}
    for name, where in {
        "paper": {"coordinates": "paper"},
        "own": {"coordinates": ((1, 2), np.asarray([3.0, 4.0]))},
    }.items():
        network = TORCH.make("MatrixCapsNet", **options, **where)
        TORCH.nn.save(network, tmp_path / name)
        loaded = framework.nn.load(tmp_path / name)
        assert loaded.classes.coordinates == network.classes.coordinates
        assert loaded.classes.entries == network.classes.entries
        assert loaded.arguments == network.arguments


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"coordinates": "centres"}, "coordinates='centres'"),
        ({"entries": "paper"}, "entries='paper'"),
        ({"coordinates": ("a", "b")}, "coordinates="),
    ],
)
def test_names_that_nobody_knows_are_refused(framework, options, words):
    rejected(lambda: framework.outline("MatrixCapsNet", 1, 3, 17, widths=(3, 2, 2, 2), **options), InputError, words)
