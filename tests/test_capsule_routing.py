"""Every routing equals its published equations, on every library, to 1e-10 in float64 and 1e-4 in float32."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emroute import capsule
from tests import capsules
from tests.helpers import compiling

TOLERANCE = {np.float64: {"rtol": 1e-10, "atol": 1e-10}, np.float32: {"rtol": 1e-4, "atol": 1e-4}}
SHAPES = [(2, 5, 3, 4), (1, 1, 2, 1), (3, 7, 1, 2), (2, 4, 5, 9)]
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)
pytestmark = pytest.mark.usefixtures("quick_compilation")


def draw(shape, seed=0):
    """Votes of children that agree with one another to some degree, activations, and both betas."""
    b, i, j, h = shape
    rng = np.random.default_rng(seed)
    votes = rng.normal(size=(b, 1, j, h)) + rng.uniform(0.1, 1.5, size=(b, i, j, 1)) * rng.normal(size=(b, i, j, h))
    return votes, rng.uniform(0.05, 1, size=(b, i)), rng.normal(size=j), rng.normal(size=j)


def assert_routing(lib, got, expected, dtype):
    for name, array, samples in zip(got._fields, got, zip(*expected, strict=True), strict=True):
        values = lib.to_numpy(array)
        assert values.dtype == dtype
        np.testing.assert_allclose(values, np.stack(samples), err_msg=name, **TOLERANCE[dtype])


def check(lib, dtype, function, arrays, transcription):
    """Compare the routing of a batch with the transcription of each sample, both of the same rounded inputs."""
    rounded = [np.asarray(x, dtype=dtype) for x in arrays]
    got = function(*(lib.asarray(x) for x in rounded))
    host = [x.astype(np.float64) for x in rounded]
    assert_routing(lib, got, [transcription(n, *host) for n in range(len(host[0]))], dtype)


@dtypes
@pytest.mark.parametrize("n_iter", [1, 3])
def test_dynamic_routing_is_procedure_1(lib, dtype, n_iter):
    votes, *_ = draw(SHAPES[0])
    check(
        lib,
        dtype,
        lambda v: capsule.dynamic_routing(v, n_iter=n_iter),
        [votes],
        lambda n, v: capsules.dynamic(v[n], n_iter),
    )


def test_dynamic_routing_takes_a_bias_and_leaks(lib):
    votes, *_ = draw(SHAPES[0])
    bias = np.random.default_rng(1).normal(size=(3, 4))
    got = capsule.dynamic_routing(lib.asarray(votes), bias=lib.asarray(bias), leaky=True)
    assert_routing(lib, got, [capsules.dynamic(v, 3, bias, leaky=True) for v in votes], np.float64)


@dtypes
def test_kmeans_routing_replaces_its_logits(lib, dtype):
    votes, *_ = draw(SHAPES[0])
    check(lib, dtype, capsule.kmeans_routing, [votes], lambda n, v: capsules.kmeans(v[n], 3))


@dtypes
@pytest.mark.parametrize("n_iter", [1, 2, 3])
def test_em_routing_is_the_papers_procedure(lib, dtype, n_iter):
    check(
        lib,
        dtype,
        lambda *arrays: capsule.em_routing(*arrays, n_iter=n_iter),
        draw(SHAPES[0]),
        lambda n, v, a, u, b: capsules.em(v[n], a[n], u, b, n_iter),
    )


@dtypes
@pytest.mark.parametrize("n_iter", [1, 3])
def test_the_normalized_cost_is_the_tutorials_code(lib, dtype, n_iter):
    check(
        lib,
        dtype,
        lambda *arrays: capsule.em_routing(*arrays, n_iter=n_iter, cost="normalized"),
        draw(SHAPES[0]),
        lambda n, v, a, u, b: capsules.em_normalized(v[n], a[n], u, b, n_iter),
    )


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 9)),
    st.integers(1, 5),
    st.integers(0, 2**16),
    st.sampled_from(["dynamic", "kmeans", "hinton", "normalized"]),
)
def test_any_shape_follows_the_equations(eager_lib, shape, n_iter, seed, kind):
    lib, (votes, activations, u, a) = eager_lib, draw(shape, seed)
    v = lib.asarray(votes)
    if kind in ("dynamic", "kmeans"):
        got = {"dynamic": capsule.dynamic_routing, "kmeans": capsule.kmeans_routing}[kind](v, n_iter=n_iter)
        expected = [getattr(capsules, kind)(sample, n_iter) for sample in votes]
    else:
        got = capsule.em_routing(v, *map(lib.asarray, (activations, u, a)), n_iter=n_iter, cost=kind)
        route = {"hinton": capsules.em, "normalized": capsules.em_normalized}[kind]
        expected = [route(sample, given, u, a, n_iter) for sample, given in zip(votes, activations, strict=True)]
    assert_routing(lib, got, expected, np.float64)


def test_schedules_are_values_callables_and_names(eager_lib):
    lib, arrays = eager_lib, draw(SHAPES[0])
    given = [lib.asarray(x) for x in arrays]
    expected = [
        capsules.em(v, a, *arrays[2:], 3, temperature=lambda t: 0.5 + t) for v, a in zip(*arrays[:2], strict=True)
    ]
    for schedule in ([0.5, 1.5, 2.5], lambda t, n_iter: 0.5 + t, np.asarray([0.5, 1.5, 2.5])):
        assert_routing(lib, capsule.em_routing(*given, inverse_temperature=schedule), expected, np.float64)
    named = capsule.em_routing(*given, inverse_temperature="tutorial")
    listed = capsule.em_routing(*given, inverse_temperature=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(lib.to_numpy(named.activations), lib.to_numpy(listed.activations))


@dtypes
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_the_ladder_leads_from_a_mixture_to_em_routing(lib, dtype, step):
    rng = np.random.default_rng(step)
    poses, given = rng.normal(size=(2, 6, 3)), rng.uniform(0.1, 1, size=(2, 6))
    start = rng.normal(size=(2, 4, 3)), rng.uniform(0.5, 2, size=(2, 4, 3)), np.full((2, 4), 0.25)
    rounded = [np.asarray(x, dtype=dtype) for x in (poses, given, *start)]
    betas = {"beta_u": lib.asarray(np.full(4, 0.3, dtype)), "beta_a": lib.asarray(np.full(4, -0.2, dtype))}
    options = [
        {},
        {"prior": "cost", **betas},
        {"prior": "cost", "activations": lib.asarray(rounded[1]), **betas},
        {"prior": "cost", "activations": lib.asarray(rounded[1]), "summed": True, **betas},
    ][step - 1]
    got = capsule.gmm_routing(lib.asarray(rounded[0]), tuple(map(lib.asarray, rounded[2:])), **options)
    host = [x.astype(np.float64) for x in rounded]
    expected = [
        capsules.ladder(
            step,
            host[0][n],
            [x[n] for x in host[2:]],
            3,
            host[1][n] if step > 2 else None,
            float(dtype(0.3)),
            float(dtype(-0.2)),
        )
        for n in range(2)
    ]
    assert_routing(lib, got, expected, dtype)


def draw_grid(h, w, k, i=2, j=3, p=2, seed=0):
    rng = np.random.default_rng(seed)
    poses, activations = rng.normal(size=(2, h, w, i, p, p)), rng.uniform(0.1, 1, size=(2, h, w, i))
    return poses, activations, rng.normal(size=(k, k, i, j, p, p)), rng.normal(size=j), rng.normal(size=j)


GEOMETRIES = [
    (5, 4, 3, 1, 0),
    (5, 5, 3, 2, 0),
    (4, 5, 3, 2, 1),
    (5, 5, 2, 3, 0),
    (3, 3, 3, 1, 2),
    (4, 4, 1, 1, 0),
    (2, 2, 4, 1, 1),
]


@pytest.mark.parametrize("over", ["parents", "window"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_convolutional_em_routing_is_that_of_all_pairs(eager_lib, geometry, over):
    lib, (h, w, k, stride, padding) = eager_lib, geometry
    poses, activations, transforms, u, a = arrays = draw_grid(h, w, k)
    options = {"stride": stride, "padding": padding}
    got = capsule.conv_em_routing(*map(lib.asarray, arrays), normalize_over=over, **options)
    step = capsules.em_step(u, a)
    expected = [
        capsules.conv(image, active, transforms, step, stride, padding, 3, over == "parents")
        for image, active in zip(poses, activations, strict=True)
    ]
    assert_routing(lib, got, expected, np.float64)


@dtypes
def test_convolutional_em_routing_on_every_library(lib, dtype):
    def transcription(n, poses, activations, transforms, u, a):
        return capsules.conv(poses[n], activations[n], transforms, capsules.em_step(u, a), 2, 1, 3)

    def routing(*arrays):
        return capsule.conv_em_routing(*arrays, stride=2, padding=1)

    check(lib, dtype, routing, draw_grid(4, 5, 3), transcription)


def test_convolutional_dynamic_routing_is_that_of_all_pairs(lib):
    poses, activations, transforms, *_ = draw_grid(4, 5, 3)
    got = capsule.conv_dynamic_routing(lib.asarray(poses), lib.asarray(transforms), stride=2, padding=1)
    expected = [
        capsules.conv(image, active, transforms, capsules.dynamic_step(), 2, 1, 3)
        for image, active in zip(poses, activations, strict=True)
    ]
    assert_routing(lib, got, expected, np.float64)


def test_routing_from_poses_is_routing_of_their_votes(lib):
    rng = np.random.default_rng(0)
    poses, transforms = lib.asarray(rng.normal(size=(2, 5, 3, 3))), lib.asarray(rng.normal(size=(5, 4, 3, 3)))
    rest = [lib.asarray(x) for x in (rng.uniform(size=(2, 5)), rng.normal(size=4), rng.normal(size=4))]
    got = capsule.em_routing_from_poses(poses, transforms, *rest)
    expected = capsule.em_routing(capsule.vote(poses, transforms), *rest)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(lib.to_numpy(a), lib.to_numpy(b), rtol=1e-10, atol=1e-12)


def test_class_capsules_are_routing_of_votes_with_places(lib):
    poses, activations, transforms, u, a = draw_grid(3, 2, 1)
    shared = lib.asarray(transforms[0, 0])
    got = capsule.class_em_routing(*map(lib.asarray, (poses, activations)), shared, *map(lib.asarray, (u, a)))
    votes = capsule.vote(lib.asarray(poses), shared)
    plain = capsule.class_em_routing(
        *map(lib.asarray, (poses, activations)), shared, *map(lib.asarray, (u, a)), entries=None
    )
    for found, cast in ((got, capsule.coordinate_addition(votes)), (plain, votes)):
        flat = lib.asarray(lib.to_numpy(cast).reshape(2, 12, 3, 4))
        expected = capsule.em_routing(flat, lib.asarray(activations.reshape(2, 12)), *map(lib.asarray, (u, a)))
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(lib.to_numpy(x), lib.to_numpy(y), rtol=1e-10, atol=1e-12)


def test_a_network_has_the_tutorials_sizes():
    """28 x 28 through convolutions of stride 2, then capsules: 14 x 14, 6 x 6, 4 x 4, 10 classes."""
    rng = np.random.default_rng(0)
    n = 4  # types of capsules in place of 32
    poses, activations = rng.normal(size=(1, 14, 14, n, 4, 4)), rng.uniform(size=(1, 14, 14, n))
    for k, stride, size in ((3, 2, 6), (3, 1, 4)):
        transforms = rng.normal(size=(k, k, n, n, 4, 4))
        found = capsule.conv_em_routing(poses, activations, transforms, np.zeros(n), np.zeros(n), stride=stride)
        assert found.poses.shape == (1, size, size, n, 4, 4)
        poses, activations = found.poses, found.activations
    found = capsule.class_em_routing(poses, activations, rng.normal(size=(n, 10, 4, 4)), np.zeros(10), np.zeros(10))
    assert found.poses.shape == (1, 10, 16)
    assert found.activations.shape == (1, 10)


def test_blocks_change_nothing():
    """More samples than one block holds, and none left over or some."""
    votes, activations, u, a = draw((70, 30, 8, 16))
    whole = capsule.em_routing(votes, activations, u, a)
    for n in (0, 33, 69):
        one = capsule.em_routing(votes[n], activations[n], u, a)
        for x, y in zip(whole, one, strict=True):
            np.testing.assert_allclose(x[n], y, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["dynamic", "k-means", "EM", "from poses", "ladder", "grid", "dynamic grid"])
def test_a_routing_may_be_compiled_whole(kind):
    """Its settings are then the key under which it is kept."""
    votes, activations, u, a = draw(SHAPES[0])
    poses, active, transforms, *betas = draw_grid(4, 5, 3)
    start = votes[:, :3, 0], np.ones((2, 3, 4)), np.full((2, 3), 1 / 3)

    def route():
        return {
            "dynamic": lambda: capsule.dynamic_routing(votes),
            "k-means": lambda: capsule.kmeans_routing(votes),
            "EM": lambda: capsule.em_routing(votes, activations, u, a),
            "from poses": lambda: capsule.em_routing_from_poses(
                poses[:, 0, 0], transforms[0, 0], active[:, 0, 0], *betas
            ),
            "ladder": lambda: capsule.gmm_routing(votes[:, :, 0], start),
            "grid": lambda: capsule.conv_em_routing(poses, active, transforms, *betas, stride=2, padding=1),
            "dynamic grid": lambda: capsule.conv_dynamic_routing(poses, transforms, stride=2, padding=1),
        }[kind]()

    expected = route()
    with compiling():
        got = route()
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_array_equal(x, y)


def test_agreement_is_found_where_it_was_planted():
    """Children of known parents plus clutter: EM routing recovers 99 % of them in 3 iterations."""
    rng = np.random.default_rng(0)
    b, i, j, h, clutter = 30, 200, 4, 16, 20
    votes = rng.normal(size=(b, i, j, h))
    parents, truth = rng.normal(size=(b, j, h)), rng.integers(j, size=(b, i))
    for n in range(b):
        for child in range(i - clutter):
            votes[n, child, truth[n, child]] = parents[n, truth[n, child]] + 0.1 * rng.normal(size=h)
    real = np.arange(i) < i - clutter

    def recovered(assignments):
        return (assignments.argmax(axis=-1) == truth)[:, real].mean()

    em = recovered(capsule.em_routing(votes, np.ones((b, i)), np.zeros(j), np.zeros(j)).assignments)
    dynamic = recovered(capsule.dynamic_routing(votes).assignments)
    print(f"EM routing {em:.3f}, dynamic routing {dynamic:.3f}")
    assert em >= 0.99


def test_moments_about_the_mean_keep_what_agreement_leaves():
    """float32 votes that agree to 1e-3 far from 0: activations as those of the same votes in float64."""
    rng = np.random.default_rng(0)
    votes = (rng.normal(size=(1, 1, 3, 16)) * 20 + 1e-3 * rng.normal(size=(2, 50, 3, 16))).astype(np.float32)
    rest = [np.ones((2, 50), np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)]
    got = capsule.em_routing(votes, *rest).activations
    expected = capsule.em_routing(votes.astype(float), *(x.astype(float) for x in rest)).activations
    np.testing.assert_allclose(got, expected, atol=1e-4)
