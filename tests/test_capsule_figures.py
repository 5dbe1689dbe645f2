"""Routings give the figures that their authors' own code gives, or that were computed apart, on sines as inputs."""

import math

import numpy as np
import pytest

from emroute import capsule
from emroute.capsule import HeinsenParameters
from tests.capsules import sigmoid

pytestmark = pytest.mark.usefixtures("quick_compilation")

BOTH = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def sines(a, b, *shape):
    return np.sin(a + b * np.arange(math.prod(shape))).reshape(shape)


def approved(lib, got, expected, dtype):
    """Eight decimals in float64, five in float32."""
    np.testing.assert_allclose(lib.to_numpy(got), expected, rtol=0, atol=6e-9 if dtype is np.float64 else 1e-5)


FULL = np.asarray([[0.09433518, 0.09432103], [0.05342459, -0.02029369]])


@BOTH
def test_em_routing_with_full_covariances(lib, dtype):
    arrays = sines(0.5, 0.7, 6, 2, 2), sigmoid(sines(0.1, 1, 6)), np.asarray([0.1, -0.2]), np.asarray([0.5, 0.3])
    options = {"epsilon": 0.01, "inverse_temperature": [1.0] * 3}
    given = [lib.asarray(x, dtype) for x in arrays]
    found = capsule.em_routing(*given, covariance="full", **options)
    approved(lib, found.poses, FULL, dtype)
    approved(lib, found.activations, [0.89637720, 0.94482562], dtype)
    chosen = [0.47700616, 0.49335158, 0.51354823, 0.50690829, 0.45532711, 0.44345743]
    approved(lib, found.assignments[:, 0], chosen, dtype)
    plain = capsule.em_routing(*given, **options)
    approved(lib, plain.poses[0, :], [0.07073936, 0.05871573], dtype)
    approved(lib, plain.activations, [0.95377495, 0.73539222], dtype)


VARIATIONAL = {
    "diagonal": (
        [[-0.23549833, 0.04791034, 0.30878603, 0.42443483], [0.29378208, 0.03402156, -0.24173983, -0.40380720]],
        [-1.75997900, -1.60338517],
        [0.52492564, 0.45792975, 0.54700028, 0.63388635],
    ),
    "full": (
        [[-0.21800255, 0.06595221, 0.31888861, 0.42184672], [0.30932321, 0.05492427, -0.22530641, -0.39957197]],
        [-1.67340391, -1.60819535],
        [0.51858141, 0.48256797, 0.51777255, 0.55643559],
    ),
}
BOUNDS = [-14.90952151, -14.90741753, -14.90366917, -14.88993916]


def variational(lib, dtype):
    arrays = sines(0.5, 0.7, 4, 2, 4), sigmoid(sines(0.1, 1, 4)), np.zeros(2), np.zeros(2)
    return [lib.asarray(x, dtype) for x in arrays]


@BOTH
@pytest.mark.parametrize("covariance", VARIATIONAL)
def test_variational_routing(lib, covariance, dtype):
    found = capsule.variational_routing(*variational(lib, dtype), covariance=covariance)
    poses, logits, chosen = VARIATIONAL[covariance]
    approved(lib, found.poses, poses, dtype)
    approved(lib, found.activations, sigmoid(np.asarray(logits)), dtype)
    approved(lib, found.assignments[:, 0], chosen, dtype)


def test_variational_routing_of_another_prior(eager_lib):
    lib, (votes, given, *_) = eager_lib, variational(eager_lib, np.float64)
    betas = lib.asarray(np.full(2, 0.1)), lib.asarray(np.full(2, 0.2))
    found = capsule.variational_routing(votes, given, *betas, alpha0=2, m0=0.1, kappa0=0.5, scale0=2, nu0=6)
    approved(lib, found.activations, sigmoid(np.asarray([-0.86673597, -0.75273325])), np.float64)
    approved(lib, found.assignments[:, 0], [0.99870651, 0.93608492, 0.27529059, 0.01632282], np.float64)


def test_the_variational_bound(lib):
    votes, given, *betas = variational(lib, np.float64)
    _, path = capsule.variational_routing(votes, given, *betas, covariance="full", n_iter=4, return_path=True)
    for step, expected in zip(path, BOUNDS, strict=True):
        approved(lib, capsule.variational_bound(votes, given, step.assignments), expected, np.float64)


AT_FIRST = [[1.13543962, 0.84834491, -1.09997977, -0.88380475], [-0.36690916, -1.47360660, 0.91438183, 0.92613393]]
LATER = (  # iteration, parent, its pose, and the assignments to the first parent
    (1, 0, [1.11589777, 0.87072163, -1.10118975, -0.88542965], [0.37111784, 0.55330976, 0.68810044, 0.75589890]),
    (2, 1, [-0.33192948, -1.48682510, 1.02154485, 0.79720974], [0.36577592, 0.55185847, 0.69083284, 0.76118350]),
)


def attention_votes():
    votes = np.einsum("ipq,ijqr->ijpr", sines(0.3, 0.9, 4, 2, 2), sines(1.2, 0.4, 4, 2, 2, 2))
    return votes.reshape(4, 2, 4)


@BOTH
def test_attention_routing(lib, dtype):
    votes = lib.asarray(attention_votes(), dtype)
    _, path = capsule.attention_routing(votes, n_iter=3, return_path=True)
    approved(lib, path[0].poses, AT_FIRST, dtype)
    for iteration, parent, poses, chosen in LATER:
        approved(lib, path[iteration].poses[parent, :], poses, dtype)
        approved(lib, path[iteration].assignments[:, 0], chosen, dtype)


def test_attention_routing_of_two_layers_at_once_and_one_after_the_other(eager_lib):
    lib, votes = eager_lib, eager_lib.asarray(attention_votes())
    transforms = lib.asarray(sines(0.6, 0.55, 2, 2, 2, 2))

    def above(poses):
        return capsule.vote(lib.asarray(lib.to_numpy(poses).reshape(2, 2, 2)), transforms)

    low = capsule.attention_routing(votes, n_iter=1).poses
    high = capsule.attention_routing(above(low), n_iter=1).poses
    concurrent = capsule.attention_routing(above(low), n_iter=1, start=high).poses
    approved(lib, concurrent[0, :], [0.97807454, 1.02143883, -0.97755478, -1.02195859], np.float64)
    sequential = capsule.attention_routing(above(capsule.attention_routing(votes).poses)).poses
    approved(lib, sequential[0, :], [0.98459565, 1.01505390, -0.97840170, -1.02124785], np.float64)


@BOTH
def test_self_routing(lib, dtype):
    arrays = (
        *(sines(0.2, 0.6, 4, 3), sigmoid(sines(0.7, 1, 4)), sines(0.9, 0.5, 4, 2, 3), sines(0.1, 0.3, 4, 2)),
        np.swapaxes(sines(0.4, 0.8, 4, 2, 2, 3), 2, 3),
    )
    found = capsule.self_routing(*(lib.asarray(x, dtype) for x in arrays))
    approved(lib, found.assignments[:, 0], [0.81022760, 0.41250256, 0.23511754, 0.36671891], dtype)
    approved(lib, found.activations, [0.47030342, 0.52969658], dtype)
    approved(lib, found.poses, [[0.30163628, -0.29427029], [0.00658317, -0.59215123]], dtype)


@BOTH
def test_self_attention_routing(lib, dtype):
    votes = np.einsum("id,jidh->ijh", sines(0.2, 0.9, 4, 3), sines(0.5, 0.3, 3, 4, 3, 2))
    bias = 0.1 * sines(0.1, 0.7, 3, 4).T
    found = capsule.self_attention_routing(lib.asarray(votes, dtype), lib.asarray(bias, dtype))
    approved(lib, found.assignments[:, 0], [0.10452550, 0.00518296, 0.01233224, 0.01106669], dtype)
    approved(lib, found.poses[0, :], [0.10345789, 0.18107723], dtype)
    approved(lib, found.activations, [0.20854855, 0.96803535, 0.91453958], dtype)
    squashed = capsule.exponential_squash(lib.asarray([3.0, 4.0], dtype))
    approved(lib, squashed, [0.59595723, 0.79460964], dtype)


@BOTH
def test_heinsen_routing(lib, dtype):
    betas = sines(0.5, 0.6, 4, 2), sines(1.5, 0.4, 4, 2)
    arrays = (
        *(sines(0.3, 0.5, 4, 3), 0.1 * sines(0.2, 0.4, 4), sines(0.9, 0.6, 2, 3), sines(0.4, 0.8, 3, 2)),
        *(0.1 * sines(0.7, 0.3, 2, 2), sines(0.5, 0.45, 2, 3), sines(1.3, 0.65, 2, 3), 0.1 * sines(0.6, 0.2, 2, 3)),
        *(sines(0.25, 0.75, 4, 2), 0.1 * sines(0.35, 0.55, 4, 2), *betas),
    )
    parameters = HeinsenParameters(*(lib.asarray(x, dtype) for x in arrays))
    found = capsule.heinsen_routing(lib.asarray(sines(0.1, 0.7, 4, 3), dtype), parameters)
    approved(lib, found.credit[:, 0], [-0.16711665, 0.11608322, 0.06746024, -0.02897720], dtype)
    one, two = 0.99850923, 0.78431718
    approved(lib, found.poses, [[-one, one], [two, -two]], dtype)


@BOTH
def test_heinsen_matrix_routing(lib, dtype):
    votes = np.einsum("icd,ijdh->ijch", sines(0.6, 0.9, 4, 2, 2), sines(0.2, 0.35, 4, 2, 2, 2))
    votes = (votes + 0.1 * sines(0.8, 0.21, 4, 2, 2, 2)).reshape(4, 2, 4)
    arrays = votes, sines(0.3, 1, 4), sines(0.5, 0.6, 4, 2), sines(1.5, 0.4, 4, 2)
    given = [lib.asarray(x, dtype) for x in arrays]
    found = capsule.heinsen_matrix_routing(*given)
    approved(lib, found.activations, [0.09094972, -0.26512929], dtype)
    approved(lib, found.poses[0, :], [0.29038549, 0.73603656, -0.01979768, -0.10896385], dtype)
    approved(lib, found.assignments[:, 0], [0.61774602, 0.45617410, 0.26220144, 0.33542039], dtype)
    found = capsule.heinsen_matrix_routing(*given, metric="k-means")
    approved(lib, found.activations, [0.47405037, -0.54562742], dtype)
    approved(lib, found.assignments[:, 0], [0.87717949, 0.54583462, 0.44796727, 0.31339747], dtype)


@pytest.mark.parametrize("name", ["EM", "variational"])
def test_a_rotation_of_all_votes_rotates_the_poses_alone(eager_lib, name):
    lib, rng = eager_lib, np.random.default_rng(0)
    votes, given = rng.normal(size=(3, 20, 4, 9)), rng.uniform(size=(3, 20))
    route = {"EM": capsule.em_routing, "variational": capsule.variational_routing}[name]
    rotation, _ = np.linalg.qr(rng.normal(size=(9, 9)))

    def routed(votes):
        arrays = votes, given, rng.normal(size=4) * 0, np.zeros(4)
        return [lib.to_numpy(x) for x in route(*map(lib.asarray, arrays), covariance="full")]

    expected, got = routed(votes), routed(votes @ rotation)
    np.testing.assert_allclose(got[0], expected[0] @ rotation, atol=1e-12)
    for x, y in zip(got[1:], expected[1:], strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_variational_bound_never_falls(seed):
    rng = np.random.default_rng(seed)
    votes, given = rng.normal(size=(5, 12, 3, 2)) * rng.uniform(0.1, 3), rng.uniform(size=(5, 12))
    prior = {"alpha0": 0.5, "m0": 0.3, "kappa0": 0.2, "scale0": 3.0, "nu0": 1.5}
    arrays = votes, given, np.zeros(3), np.zeros(3)
    _, path = capsule.variational_routing(*arrays, covariance="full", n_iter=20, return_path=True, **prior)
    bounds = [capsule.variational_bound(votes, given, step.assignments, **prior) for step in path]
    rises = np.diff(bounds, axis=0)
    assert rises.min() > -1e-11
    assert rises[0].min() > 1e-6


# The stacked capsule autoencoder


def softplus(x):
    return np.log1p(np.exp(x))


@BOTH
def test_affine_poses(lib, dtype):
    raw = lib.asarray([0.5, -0.3, 0.1, 0.2, -0.05, 0.15], dtype)
    expected = [[0.70664932, -0.10338474, -0.24491866], [0.25601427, 0.35237341, 0.63514895]]
    approved(lib, capsule.affine_poses(raw), expected, dtype)
    similar = [[0.51167035, -0.37175027, -0.24491866], [0.37175027, 0.51167035, 0.63514895]]
    approved(lib, capsule.affine_poses(raw, similarity=True), similar, dtype)


@BOTH
def test_a_warped_template(lib, dtype):
    raw = lib.asarray([0.5, -0.3, 0.1, 0.2, -0.05, 0.15], dtype)
    found = capsule.warp(lib.asarray(0.5 + 0.5 * sines(0, 1, 3, 3), dtype), capsule.affine_poses(raw), (4, 4))
    expected = [
        [0, 0, 0, 0],
        [0.07289004, 0, 0, 0],
        [0.52069555, 0.64003062, 0.64842763, 0.03420299],
        [0.15956285, 0.81739030, 0.40808015, 0.06143899],
    ]
    approved(lib, found, expected, dtype)


@BOTH
def test_the_likelihood_of_an_image(lib, dtype):
    poses = capsule.affine_poses(lib.asarray(0.5 * sines(0.3, 0.7, 2, 6), dtype))
    drawn, alpha = (
        lib.to_numpy(capsule.warp(lib.asarray(x, dtype), poses, (4, 4))).reshape(2, 16)
        for x in (0.5 + 0.5 * sines(0, 1, 2, 3, 3), sines(2, 0.5, 2, 3, 3))
    )
    image, log_presence = 0.5 + 0.5 * np.cos(np.arange(16.0)), np.log(sigmoid(np.asarray([0.4, -0.2])))
    votes = np.concatenate([drawn, np.full((1, 16), sigmoid(-1))])
    logits = np.concatenate([alpha + log_presence[:, None], np.full((1, 16), softplus(0.3))])
    arrays = image[:, None], votes[..., None], np.ones((3, 16)), logits
    found = capsule.mixture_likelihood(*(lib.asarray(x, dtype) for x in arrays))
    assert float(lib.to_numpy(found.log_prob).sum()) == pytest.approx(-16.48818320, abs=1e-5)
    approved(lib, found.log_prob[:4], [-1.24539620, -1.07110919, -0.92581666, -0.94421102], dtype)
    coupled = votes / (softplus(0.1 + 0.5) + 1e-4) + np.append(log_presence, 0)[:, None]
    found = capsule.mixture_likelihood(*(lib.asarray(x, dtype) for x in (*arrays[:3], coupled)))
    assert float(lib.to_numpy(found.log_prob).sum()) == pytest.approx(-16.57819896, abs=1e-5)


@BOTH
def test_the_likelihood_of_parts(lib, dtype):
    def affine(x):
        return capsule.affine_poses(lib.asarray(x, dtype))

    whole = affine(0.5 * sines(0.1, 0.9, 2, 6))
    votes = capsule.compose_poses(whole[:, None, ...], affine(0.5 * sines(1.1, 0.37, 2, 3, 6)))
    approved(
        lib,
        votes[0, 0, ...],
        [[0.20728182, 0.61531017, -1.47681151], [-0.09950127, 0.31020070, -1.16463074]],
        dtype,
    )
    active = sigmoid(np.asarray([0.6, -0.4]))[:, None] * sigmoid(sines(0.5, 1.3, 2, 3))
    presence, scales = sigmoid(np.asarray([1, 0.2, -0.5])), softplus(sines(0.2, 0.8, 2, 3) + 0.5) + 0.01
    parts = lib.to_numpy(affine(0.5 * sines(0.4, 1.7, 3, 6))).reshape(3, 6)
    arrays = parts, lib.to_numpy(votes).reshape(2, 3, 6), scales, np.log(active)
    given = [lib.asarray(x, dtype) for x in arrays]
    found = capsule.mixture_likelihood(*given, presence=lib.asarray(presence, dtype), dummy=(0.01, 0.01))
    shares = [[0.07979205, 0.37877526, 0.00296317], [0.25423369, 0.02984622, 0.97565887]]
    approved(lib, found.responsibilities, np.transpose(shares), dtype)
    total = lib.to_numpy(found.log_prob).sum()
    assert total == pytest.approx(-12.31116588, abs=1e-8 if dtype is np.float64 else 1e-5)
    code = total + presence @ np.log(active.sum(axis=0) + 0.01)  # whose weights are not normalized
    assert code == pytest.approx(-13.23693606, abs=1e-8 if dtype is np.float64 else 1e-5)


@BOTH
def test_the_likelihood_of_a_constellation(lib, dtype):
    scales, weights = softplus(sines(0.3, 0.5, 4) + 0.5) + 0.01, np.log(sigmoid(sines(0, 1, 4)))
    arrays = sines(0.1, 1.1, 3, 2), sines(0.7, 0.6, 4, 2), scales, weights
    found = capsule.mixture_likelihood(*(lib.asarray(x, dtype) for x in arrays), dummy=(0.01, 0.01))
    approved(lib, found.log_prob, [-2.90934565, -2.94796821, -3.34125965], dtype)
    shares = [0.38467668, 0.31156250, 0.20516517, 0.09784897]
    approved(lib, found.responsibilities[0, :], shares, dtype)


SPARSITY = {
    "l2": (0.20582256, 0.01580829),
    "entropy": (1.35985803, 1.38493120),
    "kl": (-0.02643633, -0.00136316),  # the entropies less log 4
}


@BOTH
@pytest.mark.parametrize("kind", SPARSITY)
def test_sparsity(lib, kind, dtype):
    presence = lib.asarray(sigmoid(sines(0.2, 0.9, 3, 4)), dtype)
    found = capsule.sparsity(presence, kind, n_classes=2)
    for got, expected in zip(found, SPARSITY[kind], strict=True):
        approved(lib, got, expected, dtype)
