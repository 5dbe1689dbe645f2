"""What holds for every routing, whatever the votes: symmetries, probabilities, and many ways to the same answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emroute import capsule
from emroute.capsule import Routing, em_routing, squash
from tests.helpers import NUMPY, for_all, library

pytestmark = pytest.mark.usefixtures("quick_compilation")

I, J, P, T = 5, 3, 2, 3  # noqa: E741 - one shape for all, so that JAX compiles each routing once; T iterations
H, GRID, KERNEL = P * P, (3, 4), 2
WARM = (0.5, 1.0, 2.0)
SEEDS = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Case:
    """One routing: its arrays, which samples share if they have no batch axis, and where children and parents are."""

    name: str
    route: Callable[..., Any]
    arrays: dict[str, tuple[int, ...]]
    shared: tuple[str, ...] = ()
    children: tuple[tuple[str, int], ...] = ()
    parents: tuple[tuple[str, int], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    scheduled: bool = False
    pose_axis: int = -2

    def draw(self, seed, batch=()):
        """Host arrays by name; activations and shares of parents are positive, variances too."""
        rng, drawn = np.random.default_rng(seed), {}
        for name, shape in self.arrays.items():
            shape = shape if name in self.shared else (*batch, *shape)
            uniform = name in ("activations", "weights", "variances")
            drawn[name] = rng.uniform(0.1, 1, shape) if uniform else rng.normal(size=shape)
        return drawn

    def __call__(self, lib, drawn, dtype=None, n_iter=T, **options):
        """Route host arrays; results stay with the library."""
        arrays = {name: lib.asarray(x, dtype) for name, x in drawn.items()}
        return self.route(**arrays, n_iter=n_iter, **self.settings(n_iter), **options)

    def settings(self, n_iter):
        schedule = {"inverse_temperature": WARM[:n_iter]} if self.scheduled else {}
        return schedule | dict(self.options)

    def on_host(self, lib, drawn, **options):
        return host(lib, self(lib, drawn, **options))


def host(lib, routing):
    return Routing(*map(lib.to_numpy, routing))


def mixture(poses, means, variances, weights, **options):
    return capsule.gmm_routing(poses, (means, variances, weights), **options)


BETAS = {"beta_u": (J,), "beta_a": (J,)}
VOTES = {"votes": (I, J, H)}
POSES = {"poses": (I, P, P), "transforms": (I, J, P, P), "activations": (I,), **BETAS}
GRIDS = {"poses": (*GRID, I, P, P), "transforms": (KERNEL, KERNEL, I, J, P, P)}
CLASSES = {"poses": (*GRID, I, P, P), "transforms": (I, J, P, P), "activations": (*GRID, I), **BETAS}
GAUSSIANS = {"poses": (I, H), "means": (J, H), "variances": (J, H), "weights": (J,), "activations": (I,), **BETAS}
VOTERS, TARGETS = ("votes", -3), ("votes", -2)
COSTS = (("beta_u", -1), ("beta_a", -1))
OWN, PAIRS = ("activations", -1), ("transforms", -4)


def em_case(name, route=em_routing, **options):
    return Case(
        name,
        route,
        {**VOTES, "activations": (I,), **BETAS},
        ("beta_u", "beta_a"),
        (VOTERS, OWN),
        (TARGETS, *COSTS),
        tuple(options.items()),
        scheduled=route is em_routing,
    )


def gmm_case(name, **options):
    return Case(
        name,
        mixture,
        GAUSSIANS,
        ("beta_u", "beta_a"),
        (("poses", -2), OWN),
        (("means", -2), ("variances", -2), ("weights", -1), *COSTS),
        tuple(options.items()),
        scheduled=True,
    )


CASES = {
    case.name: case
    for case in (
        em_case("em", cost="hinton"),
        em_case("normalized", cost="normalized"),
        em_case("full", covariance="full", epsilon=0.01),
        em_case("variational", capsule.variational_routing),
        em_case("full variational", capsule.variational_routing, covariance="full"),
        Case("attention", capsule.attention_routing, VOTES, (), (VOTERS,), (TARGETS,)),
        Case(
            "net scores",
            capsule.heinsen_matrix_routing,
            {**VOTES, "scores": (I,), "beta_use": (I, J), "beta_ignore": (I, J)},
            ("beta_use", "beta_ignore"),
            (VOTERS, ("scores", -1), ("beta_use", -2), ("beta_ignore", -2)),
            (TARGETS, ("beta_use", -1), ("beta_ignore", -1)),
        ),
        Case(
            "dynamic",
            capsule.dynamic_routing,
            VOTES | {"bias": (J, H)},
            ("bias",),
            (VOTERS,),
            (TARGETS, ("bias", -2)),
        ),
        Case("leaky", capsule.dynamic_routing, VOTES, (), (VOTERS,), (TARGETS,), (("leaky", True),)),
        Case("kmeans", capsule.kmeans_routing, VOTES, (), (VOTERS,), (TARGETS,)),
        gmm_case("mixture", prior="weights"),
        gmm_case("cost mixture", prior="cost", summed=True),
        Case(
            "poses",
            capsule.em_routing_from_poses,
            POSES,
            ("transforms", "beta_u", "beta_a"),
            (("poses", -3), PAIRS, OWN),
            (("transforms", -3), *COSTS),
            scheduled=True,
        ),
        Case(
            "grid",
            capsule.conv_em_routing,
            {**GRIDS, "activations": (*GRID, I), **BETAS},
            ("transforms", "beta_u", "beta_a"),
            (("poses", -3), PAIRS, OWN),
            (("transforms", -3), *COSTS),
            (("padding", 1),),
            scheduled=True,
            pose_axis=-3,
        ),
        Case(
            "window grid",
            capsule.conv_em_routing,
            {**GRIDS, "activations": (*GRID, I), **BETAS},
            ("transforms", "beta_u", "beta_a"),
            (("poses", -3), PAIRS, OWN),
            (("transforms", -3), *COSTS),
            (("normalize_over", "window"), ("stride", 2), ("cost", "normalized")),
            scheduled=True,
            pose_axis=-3,
        ),
        Case(
            "dynamic grid",
            capsule.conv_dynamic_routing,
            GRIDS,
            ("transforms",),
            (("poses", -3), PAIRS),
            (("transforms", -3),),
            (("stride", 2),),
            pose_axis=-3,
        ),
        Case(
            "classes",
            capsule.class_em_routing,
            CLASSES,
            ("transforms", "beta_u", "beta_a"),
            (),
            (("transforms", -3), *COSTS),
            scheduled=True,
        ),
    )
}
ON_GRIDS = ("grid", "window grid", "dynamic grid")


def routings(*names, but=()):
    names = [name for name in names or CASES if name not in but]
    return pytest.mark.parametrize("case", [CASES[name] for name in names], ids=names)


def take(x, order, axis):
    return np.take(x, order, axis=axis)


def assert_same(got, expected, rtol=1e-9):
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(getattr(got, name), value, rtol=rtol, atol=rtol, err_msg=name)


# Symmetries


@pytest.mark.on_jax("em", "grid")
@routings(but=["classes"])
@for_all(seed=SEEDS, order=st.permutations(range(I)))
def test_children_take_their_assignments_along(lib, case, seed, order):
    drawn = case.draw(seed, (1,))
    turned = drawn | {name: take(drawn[name], order, axis) for name, axis in case.children}
    expected = case.on_host(lib, drawn)
    expected = expected._replace(assignments=take(expected.assignments, order, -2))
    assert_same(case.on_host(lib, turned), expected)


@pytest.mark.on_jax("em", "grid")
@routings()
@for_all(seed=SEEDS, order=st.permutations(range(J)))
def test_parents_take_their_poses_and_activations_along(lib, case, seed, order):
    drawn = case.draw(seed, (1,))
    turned = drawn | {name: take(drawn[name], order, axis) for name, axis in case.parents}
    poses, activations, assignments = case.on_host(lib, drawn)
    expected = Routing(take(poses, order, case.pose_axis), take(activations, order, -1), take(assignments, order, -1))
    assert_same(case.on_host(lib, turned), expected)


@pytest.mark.on_jax("em")
@routings("em", "normalized", "full", "mixture", "cost mixture")
@for_all(seed=SEEDS, shift=hnp.arrays(np.float64, H, elements=st.floats(-100, 100)))
def test_a_shift_of_the_votes_shifts_the_poses_alone(lib, case, seed, shift):
    drawn = case.draw(seed, (1,))
    moved = drawn | {name: drawn[name] + shift for name in ("votes", "poses", "means") if name in drawn}
    expected = case.on_host(lib, drawn)
    assert_same(case.on_host(lib, moved), expected._replace(poses=expected.poses + shift), rtol=1e-8)


@pytest.mark.on_jax("grid")
@routings("grid", "window grid")
@for_all(seed=SEEDS, shift=hnp.arrays(np.float64, (P, P), elements=st.floats(-100, 100)))
def test_a_shift_of_all_poses_shifts_a_convolution_whose_transforms_are_identities(lib, case, seed, shift):
    drawn = case.draw(seed, (1,))
    drawn["transforms"] = np.broadcast_to(np.eye(P), drawn["transforms"].shape)
    expected = case.on_host(lib, drawn)
    got = case.on_host(lib, drawn | {"poses": drawn["poses"] + shift})
    assert_same(got, expected._replace(poses=expected.poses + shift), rtol=1e-8)


# Batches


@pytest.mark.on_jax("em", "grid")
@routings()
@for_all(examples=5, seed=SEEDS)
def test_a_batch_equals_its_samples_one_by_one(lib, case, seed):
    drawn = case.draw(seed, (3,))
    batch = case.on_host(lib, drawn)
    for sample in range(3):
        one = {name: x if name in case.shared else x[sample : sample + 1] for name, x in drawn.items()}
        assert_same(Routing(*(x[sample : sample + 1] for x in batch)), case.on_host(lib, one))


@routings()
@for_all(examples=5, seed=SEEDS)
def test_any_dimensions_may_lead(eager_lib, case, seed):
    drawn = case.draw(seed, (2, 3))
    expected = case.on_host(
        eager_lib, {name: x if name in case.shared else x.reshape(6, *x.shape[2:]) for name, x in drawn.items()}
    )
    got = case.on_host(eager_lib, drawn)
    assert_same(got, Routing(*(x.reshape(2, 3, *x.shape[1:]) for x in expected)), rtol=0)
    alone = case.on_host(eager_lib, {name: x if name in case.shared else x[1, 2] for name, x in drawn.items()})
    assert_same(alone, Routing(*(x[5] for x in expected)))


def test_betas_may_differ_between_samples(eager_lib):
    case, betas = CASES["em"], {"beta_u": (2, J), "beta_a": (2, J)}
    rng = np.random.default_rng(0)
    drawn = case.draw(0, (2,)) | {name: rng.normal(size=shape) for name, shape in betas.items()}
    batch = case.on_host(eager_lib, drawn)
    for sample in range(2):
        alone = case.on_host(eager_lib, {name: x[sample] for name, x in drawn.items()})
        assert_same(Routing(*(x[sample] for x in batch)), alone)


@routings(but=["cost mixture", "leaky", "window grid"])
def test_samples_in_many_blocks_equal_samples_in_one(case):
    n = 20 if case.name in ON_GRIDS else 2000
    drawn = case.draw(0, (n,))
    whole = case.on_host(NUMPY, drawn)
    for start in range(0, n, n // 4):
        part = slice(start, start + n // 4)
        some = {name: x if name in case.shared else x[part] for name, x in drawn.items()}
        assert_same(Routing(*(x[part] for x in whole)), case.on_host(NUMPY, some))


# Probabilities


def rough(*shape):
    """Votes with ties, zeros and far-out values."""
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, allow_subnormal=False, width=32))
    return hnp.arrays(np.float64, shape, elements=values, fill=st.sampled_from([0.0, 1.0, -2.0]))


def shares(*shape):
    return hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 1e-30, 1e-3, 0.5, 1.0]))


def assert_probabilities(found, leaky=False):
    assert all(np.all(np.isfinite(x)) for x in found)
    assert np.all((found.activations >= 0) & (found.activations <= 1 + 1e-12))
    assert np.all((found.assignments >= 0) & (found.assignments <= 1 + 1e-12))
    sums = found.assignments.sum(axis=-1)
    if leaky:
        assert np.all(sums < 1)
    else:
        np.testing.assert_allclose(sums, 1, rtol=1e-12)


@pytest.mark.on_jax("em", "dynamic")
@routings("em", "normalized", "full", "variational", "full variational", "attention", "dynamic", "kmeans")
@for_all(
    examples=30,
    votes=rough(1, I, J, H),
    activations=shares(1, I),
    betas=hnp.arrays(np.float64, (2, J), elements=st.sampled_from([-50.0, -1.0, 0.0, 2.0, 50.0])),
)
def test_assignments_and_activations_are_probabilities(lib, case, votes, activations, betas):
    drawn = {"votes": votes, "activations": activations, "beta_u": betas[0], "beta_a": betas[1]}
    drawn = {name: x for name, x in drawn.items() if name in case.arrays}
    drawn |= {"bias": np.ones((J, H))} if "bias" in case.arrays else {}
    assert_probabilities(case.on_host(lib, drawn))


@for_all(examples=20, votes=rough(1, I, J, H))
def test_leaky_assignments_leave_something_over(eager_lib, votes):
    votes = votes / 1e3  # beyond logits of 36 what is left is lost to rounding
    assert_probabilities(CASES["leaky"].on_host(eager_lib, {"votes": votes}), leaky=True)


@routings("mixture", "cost mixture")
@for_all(examples=20, poses=rough(1, I, H), activations=shares(1, I), seed=SEEDS)
def test_assignments_and_weights_of_a_mixture_are_probabilities(eager_lib, case, poses, activations, seed):
    found = case.on_host(eager_lib, case.draw(seed, (1,)) | {"poses": poses, "activations": activations})
    assert_probabilities(found)
    if case.name == "mixture":
        np.testing.assert_allclose(found.activations.sum(axis=-1), 1, rtol=1e-12)


@routings("grid", "window grid", "dynamic grid")
@for_all(examples=10, poses=rough(1, *GRID, I, P, P), activations=shares(1, *GRID, I), seed=SEEDS)
def test_assignments_of_a_convolution_share_out_each_child(eager_lib, case, poses, activations, seed):
    given = {"poses": poses, "activations": activations}
    given = case.draw(seed, (1,)) | {name: x for name, x in given.items() if name in case.arrays}
    found = case.on_host(eager_lib, given)
    assert all(np.all(np.isfinite(x)) for x in found)
    assert np.all((found.activations >= 0) & (found.activations <= 1 + 1e-12))
    assert np.all(found.assignments >= 0)
    sums = found.assignments.sum(axis=-1)
    if case.name == "grid":  # padded at a stride of 1: every child has parents
        np.testing.assert_allclose(sums.sum(axis=(1, 2, 3, 4)), GRID[0] * GRID[1], rtol=1e-9)
    else:
        np.testing.assert_allclose(sums, 1, rtol=1e-12)


@pytest.mark.on_jax("0.5-float32")
@pytest.mark.parametrize(("dtype", "largest"), [("float64", 1e300), ("float32", 1e37)], ids=["float64", "float32"])
@pytest.mark.parametrize("constant", [0.5, 1.0])
@for_all(
    examples=30,
    direction=hnp.arrays(np.float64, (2, H), elements=st.floats(-1, 1)),
    power=st.sampled_from([-1.0, -0.9, -0.5, -0.1, 0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_squash_is_never_longer_than_one(lib, dtype, largest, constant, direction, power):
    s = (direction * largest**power).astype(dtype)
    found = squash(lib.asarray(s), constant=constant)
    value = lib.to_numpy(found).astype(np.float64)
    assert lib.to_numpy(found).dtype == np.dtype(dtype)
    assert np.all(np.isfinite(value))
    length = np.linalg.norm(value, axis=-1)
    assert np.all(length <= 1 + 8 * np.finfo(dtype).eps)
    exact = s.astype(np.longdouble)
    square = (exact**2).sum(axis=-1, keepdims=True)
    expected = exact * np.sqrt(square) / (constant + square)
    np.testing.assert_allclose(value, expected.astype(np.float64), rtol=1e-5, atol=np.finfo(dtype).tiny)


@for_all(seed=SEEDS, axis=st.sampled_from([-3, -2, -1, 0, 1, 2]))
def test_squash_shrinks_along_any_axis(eager_lib, seed, axis):
    s = np.random.default_rng(seed).normal(size=(2, 3, 4))
    got = eager_lib.to_numpy(squash(eager_lib.asarray(s), axis=axis))
    expected = np.moveaxis(squash(np.moveaxis(s, axis, -1)), -1, axis)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


# Iterations


@pytest.mark.on_jax("em")
@routings(but=["mixture", "cost mixture", *ON_GRIDS])
@for_all(examples=3, seed=SEEDS)
def test_one_iteration_assigns_evenly(lib, case, seed):
    found = case.on_host(lib, case.draw(seed, (1,)), n_iter=1)
    np.testing.assert_allclose(found.assignments, 1 / (J + 1) if case.name == "leaky" else 1 / J, rtol=1e-14)


@pytest.mark.on_jax("em")
@routings()
@for_all(examples=3, seed=SEEDS)
def test_a_path_ends_with_the_result(lib, case, seed):
    drawn = case.draw(seed, (1,))
    last, path = case(lib, drawn, return_path=True)
    assert len(path) == T
    assert all(isinstance(routing, Routing) for routing in path)
    assert_same(host(lib, path[-1]), host(lib, last), rtol=0)
    assert_same(case.on_host(lib, drawn), host(lib, last))


@routings()
@for_all(examples=3, seed=SEEDS)
def test_a_path_holds_what_fewer_iterations_find(eager_lib, case, seed):
    drawn = case.draw(seed, (1,))
    _, path = case(eager_lib, drawn, return_path=True)
    for t, routing in enumerate(path):
        assert_same(host(eager_lib, routing), case.on_host(eager_lib, drawn, n_iter=t + 1))


def test_schedules_have_names_and_may_be_functions_or_values():
    case = CASES["em"]
    drawn = case.draw(0)

    def route(**options):
        return em_routing(**drawn, **options)

    def paper(t, n_iter):
        return 0.01 * (1 - 0.95 ** (t + 1))

    for same in ("paper", paper, [paper(t, 3) for t in range(3)], np.array([paper(t, 3) for t in range(3)])):
        assert_same(route(inverse_temperature=same), route(), rtol=1e-14)
    for n_iter, values in ((1, [1.0]), (2, [1.0, 2.0]), (5, [1, 1.5, 2, 2.5, 3])):
        by_name = route(n_iter=n_iter, inverse_temperature="tutorial")
        assert_same(by_name, route(n_iter=n_iter, inverse_temperature=values), rtol=1e-14)
    assert_same(route(cost="normalized"), route(cost="normalized", inverse_temperature="tutorial"), rtol=0)


# Precision


def in_half(lib, x, dtype):
    return lib.module.asarray(lib.asarray(x, "float32"), dtype=dtype)


HALVES = {"numpy": "float16", "torch": "bfloat16", "jax": "bfloat16"}


@pytest.mark.on_jax("em")
@pytest.mark.parametrize("xp_name", ["numpy", "torch", "jax"])
@routings(but=["cost mixture", "leaky", "window grid"])
def test_half_precision_comes_back_and_is_computed_in_more(xp_name, case):
    lib, name = library(xp_name), HALVES[xp_name]
    half, single = getattr(lib.module, name), lib.module.float32
    drawn = {key: in_half(lib, x, half) for key, x in case.draw(0, (2,)).items()}
    options = {"n_iter": T, **case.settings(T)}
    got = case.route(**drawn, **options)
    expected = case.route(**{key: lib.module.asarray(x, dtype=single) for key, x in drawn.items()}, **options)
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[name]
    slack = 8 * eps if "poses" in drawn else eps  # votes are products in half precision
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == half
        x, y = (lib.to_numpy(lib.module.asarray(value, dtype=single)) for value in (x, y))
        np.testing.assert_allclose(x, y, rtol=slack, atol=slack)


@pytest.mark.on_jax("em")
@routings()
def test_single_precision_comes_back_close_to_double(lib, case):
    drawn = case.draw(0, (2,))
    got, expected = case.on_host(lib, drawn, dtype="float32"), case.on_host(NUMPY, drawn)
    assert all(x.dtype == np.float32 for x in got)
    assert_same(got, expected, rtol=1e-3)
