"""Capsules: bad input is one of our errors that names the axis or the argument; losses and masks, by hand."""

import math

import numpy as np
import pytest

from emroute import capsule
from emroute.capsule import (
    margin_loss,
    mask_capsules,
    reconstruction_loss,
    spread_loss,
    spread_margin,
    squash,
    tweak_poses,
)
from emroute.errors import InputError, InputTypeError
from tests.helpers import NUMPY, library, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

I, J, P = 4, 3, 2  # noqa: E741
H, GRID, KERNEL = P * P, (3, 4), 2


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def spoilt(x, value=np.nan):
    """The same, with another first entry."""
    x = x.copy()
    x[(0,) * x.ndim] = value
    return x


BETAS = {"beta_u": normal(J), "beta_a": normal(J)}
VOTES, GIVEN = normal(I, J, H), np.full(I, 0.5)
POSES, PAIRS = normal(I, P, P), normal(I, J, P, P)
GRIDS, GIVEN_GRID, KERNELS = normal(1, *GRID, I, P, P), np.full((1, *GRID, I), 0.5), normal(KERNEL, KERNEL, I, J, P, P)
MEANS = normal(J, H)
START = MEANS, np.ones((J, H)), np.full(J, 1 / J)
LENGTHS, LABELS = np.array([[0.9, 0.3, 0.8], [0.05, 0.1, 0.2]]), np.array([0, 2])

ARGUMENTS = {
    "squash": {"s": VOTES},
    "vote": {"poses": POSES, "transforms": PAIRS},
    "coordinate_addition": {"votes": normal(*GRID, I, J, H)},
    "dynamic_routing": {"votes": VOTES, "bias": normal(J, H)},
    "kmeans_routing": {"votes": VOTES},
    "exponential_squash": {"s": VOTES},
    "mixture_likelihood": {
        "points": normal(I, H),
        "votes": normal(J, H),
        "scales": np.ones(J),
        "log_weights": normal(J),
        "presence": GIVEN,
    },
    "affine_poses": {"raw": normal(I, 6)},
    "compose_poses": {"outer": normal(I, 2, 3), "inner": normal(I, 2, 3)},
    "sparsity": {"presence": np.full((I, J), 0.5)},
    "attention_routing": {"votes": VOTES, "gain": normal(H), "bias": normal(H), "start": normal(J, H)},
    "variational_routing": {"votes": VOTES, "activations": GIVEN, **BETAS},
    "variational_bound": {"votes": VOTES, "activations": GIVEN, "assignments": np.full((I, J), 1 / J)},
    "self_routing": {
        "poses": normal(I, P),
        "activations": GIVEN,
        "route_weights": normal(I, J, P),
        "route_bias": normal(I, J),
        "transforms": normal(I, J, P, H),
    },
    "self_attention_routing": {"votes": VOTES, "bias": normal(I, J)},
    "heinsen_matrix_routing": {
        "votes": VOTES,
        **{name: normal(I, J) for name in ("beta_use", "beta_ignore")},
        "scores": normal(I),
    },
    "em_routing": {"votes": VOTES, "activations": GIVEN, **BETAS},
    "gmm_routing": {"poses": normal(I, H), "init": START, "activations": GIVEN},
    "em_routing_from_poses": {"poses": POSES, "transforms": PAIRS, "activations": GIVEN, **BETAS},
    "conv_em_routing": {"poses": GRIDS, "activations": GIVEN_GRID, "transforms": KERNELS, **BETAS},
    "conv_dynamic_routing": {"poses": GRIDS, "transforms": KERNELS},
    "class_em_routing": {"poses": GRIDS, "activations": GIVEN_GRID, "transforms": PAIRS, **BETAS},
    "margin_loss": {"lengths": LENGTHS, "labels": LABELS},
    "spread_loss": {"activations": LENGTHS, "labels": LABELS},
    "reconstruction_loss": {"reconstructions": np.ones((2, 4)), "images": np.zeros((2, 2, 2))},
    "mask_capsules": {"poses": normal(2, 3, H), "labels": LABELS},
    "tweak_poses": {"poses": normal(2, H)},
}
WITH_PATHS = (
    *("dynamic_routing", "kmeans_routing", "em_routing"),
    *("attention_routing", "variational_routing", "heinsen_matrix_routing"),
)
VOTERS = (*WITH_PATHS, "self_attention_routing")
CAPSULES = ("em_routing_from_poses", "conv_em_routing", "conv_dynamic_routing", "class_em_routing")
EM = ("em_routing", "em_routing_from_poses", "conv_em_routing", "class_em_routing")
ROUTINGS = (*WITH_PATHS, "gmm_routing", *CAPSULES)


def carried(lib, value):
    """A host array, or a tuple of them, on a library; anything else as it is."""
    if isinstance(value, tuple) and any(isinstance(x, np.ndarray) for x in value):
        return tuple(carried(lib, x) for x in value)
    return lib.asarray(value) if isinstance(value, np.ndarray) else value


def call(lib, name, **changes):
    """Call a function of `emroute.capsule` with good arguments but for some."""
    arguments = ARGUMENTS[name] | changes
    return getattr(capsule, name)(**{key: carried(lib, value) for key, value in arguments.items()})


def refusals(table):
    """Cases ``(function, changes, words)`` under names."""
    rows = [(name, changes, words) for names, changes, words in table for name in names]
    names = [f"{name} {' '.join(changes)} {words[0]}" for name, changes, words in rows]
    return pytest.mark.parametrize(("name", "changes", "words"), rows, ids=names)


@pytest.mark.on_jax("dynamic_routing", "em_routing")
@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_arguments_that_are_spoilt_below_are_good(lib, name):
    call(lib, name)


# Shapes


@refusals(
    [
        (VOTERS, {"votes": VOTES[0]}, ("votes have shape (3, 4)", "(..., I, J, H)")),
        (VOTERS, {"votes": VOTES[:0]}, ("votes have shape (0, 3, 4)", "no axis of length 0")),
        (VOTERS, {"votes": VOTES[:, :0]}, ("votes have shape (4, 0, 4)", "no axis of length 0")),
        (VOTERS, {"votes": VOTES[..., :0]}, ("votes have shape (4, 3, 0)", "no axis of length 0")),
        (VOTERS, {"votes": normal(0, I, J, H)}, ("votes have shape (0, 4, 3, 4)", "no axis of length 0")),
        (("dynamic_routing",), {"bias": normal(J, H + 1)}, ("bias: shape (3, 5)", "(3, 4)")),
        (("dynamic_routing",), {"bias": normal(2, J, H)}, ("bias: shape (2, 3, 4)", "(3, 4)")),
        (("vote", "em_routing_from_poses"), {"poses": POSES[0]}, ("poses have shape (2, 2)", "(..., I, P, P)")),
        (("vote", "em_routing_from_poses"), {"poses": normal(I, P, P + 1)}, ("poses have shape", "square")),
        (
            ("vote", "em_routing_from_poses"),
            {"poses": POSES[:0]},
            ("poses have shape (0, 2, 2)", "no axis of length 0"),
        ),
        (("vote", "em_routing_from_poses"), {"poses": normal(0, I, P, P)}, ("poses have shape", "no axis of length 0")),
        (("vote", "em_routing_from_poses"), {"transforms": PAIRS[0]}, ("transforms have shape", "(I, J, P, P)")),
        (("vote", *CAPSULES[:1], *CAPSULES[3:]), {"transforms": PAIRS[1:]}, ("transforms have shape", "I = 4")),
        (("vote", *CAPSULES[:1], *CAPSULES[3:]), {"transforms": normal(I, J, 3, 3)}, ("transforms have", "P = 2")),
        (("vote", *CAPSULES[:1], *CAPSULES[3:]), {"transforms": PAIRS[:, :0]}, ("transforms have shape (4, 0, 2, 2)",)),
        (CAPSULES[1:], {"poses": GRIDS[0, ..., 0]}, ("poses have shape (3, 4, 4, 2)", "(..., h, w, I, P, P)")),
        (CAPSULES[1:], {"poses": normal(P)}, ("poses have shape (2,)", "(..., h, w, I, P, P)")),
        (CAPSULES[1:], {"poses": normal(1, *GRID, I, P, P + 1)}, ("poses have shape", "square")),
        (CAPSULES[1:], {"poses": GRIDS[:0]}, ("poses have shape (0,", "no axis of length 0")),
        (CAPSULES[1:], {"poses": GRIDS[:, :0]}, ("poses have shape (1, 0,", "no axis of length 0")),
        (CAPSULES[1:3], {"transforms": KERNELS[0]}, ("transforms have shape", "(K, K, I, J, P, P)")),
        (CAPSULES[1:3], {"transforms": KERNELS[:1]}, ("transforms have shape (1, 2,", "(K, K, I, J, P, P)")),
        (CAPSULES[1:3], {"transforms": KERNELS[:, :, 1:]}, ("transforms have shape", "I = 4")),
        (CAPSULES[1:3], {"transforms": KERNELS[..., :1]}, ("transforms have shape", "P = 2")),
        (CAPSULES[1:3], {"transforms": KERNELS[:0, :0]}, ("transforms have shape (0, 0,",)),
        (EM[:2], {"activations": GIVEN[1:]}, ("activations have shape (3,)", "I = 4")),
        (EM[:2], {"activations": np.full((), 0.5)}, ("activations have shape ()", "I = 4")),
        (EM[:2], {"activations": np.full((2, I), 0.5)}, ("activations: shape (2, 4)", "(4,)")),
        (("em_routing",), {"activations": np.zeros((0, I))}, ("activations", "(0, 4)")),
        (("conv_em_routing",), {"activations": GIVEN_GRID[..., 1:]}, ("activations have shape", "I = 4")),
        (("conv_em_routing",), {"activations": GIVEN_GRID[:, 1:]}, ("activations: shape (1, 2, 4, 4)",)),
        (("class_em_routing",), {"activations": GIVEN_GRID[..., 1:]}, ("activations have shape", "(..., 3, 4, 4)")),
        (("class_em_routing",), {"activations": GIVEN_GRID[0, 0]}, ("activations have shape (4, 4)",)),
        (EM, {"beta_u": normal(J + 1)}, ("beta_u: shape (4,)", "does not broadcast")),
        (("variational_routing",), {"activations": GIVEN[1:]}, ("activations have shape (3,)", "I = 4")),
        (("variational_bound",), {"assignments": normal(J, J)}, ("assignments have shape (3, 3)", "I = 4")),
        (("attention_routing",), {"gain": normal(H + 1)}, ("gain: shape (5,)", "(3, 4)")),
        (("attention_routing",), {"start": normal(J + 1, H)}, ("start: shape (4, 4)", "(3, 4)")),
        (("mixture_likelihood",), {"votes": normal(H)}, ("votes (4,)", "(..., K, H)")),
        (("mixture_likelihood",), {"scales": np.ones(J + 1)}, ("scales: shape (4,)", "(3,)")),
        (("mixture_likelihood",), {"presence": normal(J)}, ("presence: shape (3,)", "(4,)")),
        (("affine_poses",), {"raw": normal(5)}, ("raw poses have shape (5,)", "(..., 6)")),
        (("compose_poses",), {"inner": normal(3, 2)}, ("inner poses have shape (3, 2)", "(..., 2, 3)")),
        (("sparsity",), {"presence": normal(J)}, ("presence has shape (3,)", "(B, K)")),
        (("self_routing",), {"poses": normal(P)}, ("poses have shape (2,)", "(..., I, D)")),
        (("self_routing",), {"transforms": normal(I, J, P + 1, H)}, ("transforms have shape", "D = 2")),
        (("self_routing",), {"route_weights": normal(I, J)}, ("route_weights have shape (4, 3)", "(4, 3, 2)")),
        (("self_routing",), {"route_bias": normal(J)}, ("route_bias have shape (3,)", "(4, 3)")),
        (("self_attention_routing",), {"bias": normal(J, I)}, ("bias: shape (3, 4)", "(4, 3)")),
        (("heinsen_matrix_routing",), {"scores": normal(J)}, ("scores: shape (3,)", "(4,)")),
        (("heinsen_matrix_routing",), {"beta_use": normal(J, I)}, ("beta_use: shape (3, 4)", "(4, 3)")),
        (EM, {"beta_a": normal(7, 7, 7, 7, 7, 7)}, ("beta_a: shape (7, 7",)),
        (("gmm_routing",), {"poses": normal(H)}, ("poses have shape (4,)", "(..., I, H)")),
        (("gmm_routing",), {"poses": normal(0, H)}, ("poses have shape (0, 4)", "no axis of length 0")),
        (("gmm_routing",), {"poses": normal(I, H + 1)}, ("starting means have shape (3, 4)", "H = 5")),
        (("gmm_routing",), {"init": START[:2]}, ("init", "(means, variances, weights)")),
        (("gmm_routing",), {"init": (*START, MEANS)}, ("init", "(means, variances, weights)")),
        (("gmm_routing",), {"init": (MEANS[0], *START[1:])}, ("starting means have shape (4,)", "(..., J, H)")),
        (("gmm_routing",), {"init": (MEANS, START[1][:2], START[2])}, ("variances: shape (2, 4)", "(3, 4)")),
        (("gmm_routing",), {"init": (MEANS, START[1], START[2][1:])}, ("weights have shape (2,)", "3")),
        (("gmm_routing",), {"activations": GIVEN[1:]}, ("activations have shape (3,)", "I = 4")),
        (("gmm_routing",), {"beta_u": normal(J + 1)}, ("beta_u: shape (4,)", "does not broadcast")),
        (("coordinate_addition",), {"votes": VOTES}, ("votes have shape (4, 3, 4)", "(..., h, w, I, J, H)")),
        (("margin_loss",), {"labels": np.array([0])}, ("labels have shape (1,)", "(2,)")),
        (("margin_loss",), {"labels": np.ones((2, 2))}, ("labels have shape (2, 2)", "(2,)")),
        (("spread_loss",), {"labels": np.ones((2, 3))}, ("labels have shape (2, 3)", "(2,)")),
        (("spread_loss",), {"labels": np.array([0])}, ("labels have shape (1,)", "(2,)")),
        (("mask_capsules",), {"labels": np.array([0])}, ("labels have shape (1,)", "(2,)")),
        (("mask_capsules",), {"poses": normal(H)}, ("poses have shape (4,)", "(..., classes, H)")),
        (("reconstruction_loss",), {"images": np.zeros((2, 2, 3))}, ("reconstructions have shape (2, 4)", "(2, 2, 3)")),
        (("reconstruction_loss",), {"reconstructions": np.ones((4, 2))}, ("reconstructions have shape (4, 2)",)),
        (("tweak_poses",), {"poses": np.ones(())}, ("poses", "(..., H)")),
        (("squash",), {"s": np.ones(())}, ("axis=-1", "()")),
        (("squash",), {"s": np.ones((3, 0))}, ("axis=-1", "(3, 0)")),
        (("mask_capsules",), {"poses": normal(2, 3, 0)}, ("poses have shape (2, 3, 0)", "(..., classes, H)")),
        (("spread_loss",), {"margin": np.ones(2)}, ("margin has shape (2,)", "one number")),
    ]
)
def test_shapes_that_do_not_fit_are_refused(lib, name, changes, words):
    rejected(lambda: call(lib, name, **changes), InputError, *words)


# Values


@pytest.mark.on_jax("em_routing")
@refusals(
    [
        (VOTERS, {"votes": spoilt(VOTES)}, ("votes hold NaN or infinity",)),
        (VOTERS, {"votes": spoilt(VOTES, np.inf)}, ("votes hold NaN or infinity",)),
        (("dynamic_routing",), {"bias": spoilt(normal(J, H))}, ("bias hold", "NaN or infinity")),
        (("em_routing_from_poses",), {"poses": spoilt(POSES)}, ("poses hold NaN or infinity",)),
        (CAPSULES[1:], {"poses": spoilt(GRIDS)}, ("poses hold NaN or infinity",)),
        (CAPSULES[1:], {"poses": spoilt(GRIDS, -np.inf)}, ("poses hold NaN or infinity",)),
        (("em_routing_from_poses", "class_em_routing"), {"transforms": spoilt(PAIRS)}, ("transforms hold NaN",)),
        (CAPSULES[1:3], {"transforms": spoilt(KERNELS)}, ("transforms hold NaN",)),
        (EM, {"beta_u": spoilt(BETAS["beta_u"])}, ("beta_u", "NaN")),
        (EM, {"beta_a": spoilt(BETAS["beta_a"])}, ("beta_a", "NaN")),
        (EM, {"beta_a": spoilt(BETAS["beta_a"]), "n_iter": 1}, ("beta_a", "NaN")),
        (EM[:2], {"activations": spoilt(GIVEN)}, ("activations", "[0, 1]", "NaN")),
        (("mixture_likelihood",), {"points": spoilt(normal(I, H))}, ("not finite", "NaN")),
        (("mixture_likelihood",), {"scales": spoilt(np.ones(J), 0.0)}, ("scales must be positive",)),
        (("mixture_likelihood",), {"log_weights": np.full(J, -np.inf)}, ("not finite", "no weight is positive")),
        (EM[:2], {"activations": spoilt(GIVEN, -0.1)}, ("activations", "[0, 1]")),
        (EM[:2], {"activations": spoilt(GIVEN, 1.5)}, ("activations", "[0, 1]")),
        (EM[2:], {"activations": spoilt(GIVEN_GRID, 1.5)}, ("activations", "[0, 1]")),
        (EM[2:], {"activations": spoilt(GIVEN_GRID)}, ("activations", "[0, 1]", "NaN")),
        (("gmm_routing",), {"poses": spoilt(normal(I, H))}, ("poses hold NaN",)),
        (("gmm_routing",), {"init": (spoilt(MEANS), *START[1:])}, ("means hold NaN",)),
        (("gmm_routing",), {"init": (MEANS, spoilt(START[1]), START[2])}, ("variances must be positive",)),
        (("gmm_routing",), {"init": (MEANS, spoilt(START[1], 0.0), START[2])}, ("variances must be positive",)),
        (("gmm_routing",), {"init": (MEANS, START[1], spoilt(START[2], 2.0))}, ("weights along J", "[0, 1]")),
        (("gmm_routing",), {"activations": spoilt(GIVEN, 2.0)}, ("activations", "[0, 1]")),
        (("gmm_routing",), {"prior": "cost", "beta_u": spoilt(normal(J))}, ("beta_u hold NaN",)),
        (("gmm_routing",), {"prior": "cost", "beta_a": spoilt(normal(J))}, ("beta_a hold NaN",)),
        (("margin_loss", "spread_loss", "mask_capsules"), {"labels": np.array([0, 3])}, ("labels", "from 0 to 2")),
        (("margin_loss", "spread_loss", "mask_capsules"), {"labels": np.array([-1, 0])}, ("labels", "from 0 to 2")),
        (("margin_loss",), {"labels": np.full((2, 3), 0.5)}, ("targets", "0 or 1")),
        (("margin_loss",), {"labels": np.full((2, 3), np.nan)}, ("targets", "0 or 1")),
    ]
)
def test_values_that_cannot_be_used_are_refused(lib, name, changes, words):
    with np.errstate(invalid="ignore"):  # infinities make NumPy warn before
        rejected(lambda: call(lib, name, **changes), InputError, *words)


@pytest.mark.parametrize("name", ["margin_loss", "spread_loss", "reconstruction_loss"])
def test_the_mean_loss_of_no_sample_is_refused(lib, name):
    nothing = {key: value[:0] for key, value in ARGUMENTS[name].items()}
    rejected(lambda: call(lib, name, **nothing), InputError, "no samples")
    assert float(call(lib, name, **nothing, reduction="sum")) == 0
    assert tuple(call(lib, name, **nothing, reduction="none").shape) == (0,)


# Options


@refusals(
    [
        (ROUTINGS, {"n_iter": 0}, ("n_iter=0", "integer of at least 1")),
        (ROUTINGS, {"n_iter": -2}, ("n_iter=-2", "integer of at least 1")),
        (ROUTINGS, {"n_iter": 1.5}, ("n_iter=1.5", "integer")),
        (ROUTINGS, {"n_iter": "three"}, ("n_iter='three'", "integer")),
        (ROUTINGS, {"n_iter": True}, ("n_iter=True", "integer")),
        (EM, {"cost": "entropy"}, ("cost='entropy'", "'hinton'", "'normalized'")),
        ((*EM, "variational_routing"), {"covariance": "tied"}, ("covariance='tied'", "'diagonal'", "'full'")),
        (EM, {"covariance": "full", "cost": "normalized"}, ("cost='normalized'", "covariance='full'", "'hinton'")),
        (("variational_routing", "variational_bound"), {"alpha0": 0}, ("alpha0=0", "positive")),
        (("variational_routing", "variational_bound"), {"kappa0": -1.0}, ("kappa0=-1.0", "at least 0")),
        (("variational_routing", "variational_bound"), {"m0": math.inf}, ("m0=inf", "finite")),
        (("variational_routing", "variational_bound"), {"nu0": 3.0}, ("nu0=3.0", "4 entries", "more than 3")),
        (("mixture_likelihood",), {"dummy": 0.1}, ("dummy=0.1", "a weight and a density")),
        (("mixture_likelihood",), {"dummy": (0.0, 0.1)}, ("dummy=(0.0, 0.1)", "positive")),
        (("sparsity",), {"kind": "l1"}, ("kind='l1'", "'entropy'")),
        (("sparsity",), {"n_classes": 0}, ("n_classes=0", "at least 1")),
        (("heinsen_matrix_routing",), {"metric": "cosine"}, ("metric='cosine'", "'gaussian'", "'k-means'")),
        (("heinsen_matrix_routing",), {"epsilon": 0}, ("epsilon=0", "positive")),
        ((*EM, "gmm_routing"), {"epsilon": -1e-6}, ("epsilon=-1e-06", "at least 0")),
        ((*EM, "gmm_routing"), {"epsilon": math.nan}, ("epsilon=nan", "at least 0")),
        ((*EM, "gmm_routing"), {"inverse_temperature": "warm"}, ("inverse_temperature='warm'", "'paper'")),
        ((*EM, "gmm_routing"), {"inverse_temperature": [1.0, 2.0]}, ("inverse_temperature=[1.0, 2.0]", "3 finite")),
        ((*EM, "gmm_routing"), {"inverse_temperature": (1.0, 2.0, -1.0)}, ("inverse_temperature", "at least 0")),
        ((*EM, "gmm_routing"), {"inverse_temperature": (1.0, 2.0, math.nan)}, ("inverse_temperature", "3 finite")),
        ((*EM, "gmm_routing"), {"inverse_temperature": (1.0, 2.0, math.inf)}, ("inverse_temperature", "3 finite")),
        ((*EM, "gmm_routing"), {"inverse_temperature": 1.0}, ("inverse_temperature=1.0", "3 finite")),
        ((*EM, "gmm_routing"), {"inverse_temperature": lambda t: 1.0}, ("inverse_temperature", "(t, n_iter)")),
        ((*EM, "gmm_routing"), {"inverse_temperature": lambda t, n: "hot"}, ("inverse_temperature", "3 finite")),
        (("gmm_routing",), {"prior": "uniform"}, ("prior='uniform'", "'weights'", "'cost'")),
        (CAPSULES[1:3], {"normalize_over": "children"}, ("normalize_over='children'", "'parents'", "'window'")),
        (CAPSULES[1:3], {"stride": 0}, ("stride=0", "at least 1")),
        (CAPSULES[1:3], {"stride": 1.5}, ("stride=1.5", "integer")),
        (CAPSULES[1:3], {"stride": (1, 1)}, ("stride=(1, 1)", "integer")),
        (CAPSULES[1:3], {"padding": -1}, ("padding=-1", "at least 0")),
        (CAPSULES[1:3], {"padding": "same"}, ("padding='same'", "integer")),
        (CAPSULES[1:3], {"padding": KERNEL}, ("padding=2", "kernel of 2", "no child")),
        (CAPSULES[1:3], {"transforms": normal(4, 4, I, J, P, P)}, ("kernel of 4", "larger than axis h, 3")),
        (CAPSULES[1:3], {"poses": GRIDS[:, :, :1]}, ("kernel of 2", "larger than axis w, 1")),
        (("class_em_routing", "coordinate_addition"), {"entries": (0, 0)}, ("entries=(0, 0)", "two different", "3")),
        (("class_em_routing", "coordinate_addition"), {"entries": (0, H)}, ("entries=(0, 4)", "two different", "3")),
        (("class_em_routing", "coordinate_addition"), {"entries": (0, 1, 2)}, ("entries=(0, 1, 2)", "two different")),
        (("class_em_routing", "coordinate_addition"), {"entries": (3, -1)}, ("entries=(3, -1)", "two different")),
        (("class_em_routing", "coordinate_addition"), {"entries": 1}, ("entries=1", "two different")),
        (("squash", "kmeans_routing"), {"constant": 0.0}, ("constant=0.0", "positive")),
        (("squash", "kmeans_routing"), {"constant": -1.0}, ("constant=-1.0", "expected")),
        (("squash", "kmeans_routing"), {"constant": math.nan}, ("constant=nan", "expected")),
        (("squash", "kmeans_routing"), {"constant": "half"}, ("constant='half'", "expected")),
        (("squash",), {"axis": 3}, ("axis=3", "(4, 3, 4)")),
        (("squash",), {"axis": -4}, ("axis=-4", "(4, 3, 4)")),
        (("squash",), {"axis": "H"}, ("axis='H'", "(4, 3, 4)")),
        (("margin_loss", "spread_loss", "reconstruction_loss"), {"reduction": "max"}, ("reduction='max'", "'none'")),
        (("reconstruction_loss",), {"n_axes": -1}, ("n_axes=-1",)),
        (("reconstruction_loss",), {"n_axes": "all"}, ("n_axes='all'",)),
        (("spread_loss",), {"margin": math.nan}, ("margin=nan",)),
        (("spread_loss",), {"margin": "wide"}, ("margin='wide'",)),
        (("margin_loss",), {"present": math.nan}, ("present=nan",)),
        (("margin_loss",), {"down_weight": "half"}, ("down_weight='half'",)),
        (("tweak_poses",), {"steps": 0.5}, ("steps=0.5",)),
        (("tweak_poses",), {"steps": ["far"]}, ("steps=['far']",)),
        (("tweak_poses",), {"steps": [math.nan]}, ("steps=[nan]",)),
    ]
)
def test_options_that_cannot_be_used_are_refused(eager_lib, name, changes, words):
    rejected(lambda: call(eager_lib, name, **changes), InputError, *words)


def test_options_are_refused_on_jax_too():
    lib = library("jax")
    rejected(lambda: call(lib, "em_routing", n_iter=0), InputError, "n_iter=0")
    rejected(lambda: call(lib, "em_routing", cost="entropy"), InputError, "cost='entropy'")
    rejected(lambda: call(lib, "conv_em_routing", stride=0), InputError, "stride=0")
    rejected(lambda: call(lib, "kmeans_routing", constant=-1.0), InputError, "constant=-1.0")


# Dtypes and libraries


ARRAYS = [(name, argument) for name, arguments in ARGUMENTS.items() for argument in arguments]
every_array = pytest.mark.parametrize(("name", "argument"), ARRAYS, ids=["-".join(pair) for pair in ARRAYS])


def converted(value, convert):
    return tuple(convert(x) for x in value) if isinstance(value, tuple) else convert(value)


@every_array
@pytest.mark.parametrize("dtype", ["int64", "bool", "complex128"])
def test_other_dtypes_than_floating_are_refused(lib, name, argument, dtype):
    if argument == "labels":
        pytest.skip("labels are integers")
    wrong = converted(ARGUMENTS[name][argument], lambda x: x.astype(dtype))
    words = ("dtype", dtype, "floating", "convert")
    rejected(lambda: call(lib, name, **{argument: wrong}), InputTypeError, *words)


def test_targets_that_are_no_numbers_are_refused(lib):
    targets = np.zeros((2, 3), "complex128")
    rejected(lambda: call(lib, "margin_loss", labels=targets), InputTypeError, "targets", "complex128", "real numbers")


def test_finite_inputs_whose_routing_is_not_are_told_what_to_do(eager_lib):
    huge = 1e200 * (1 + np.arange(VOTES.size).reshape(VOTES.shape))
    with np.errstate(over="ignore", invalid="ignore"):
        rejected(lambda: call(eager_lib, "em_routing", votes=huge), InputError, "finite inputs", "scale them down")


@pytest.mark.parametrize("name", ["margin_loss", "spread_loss", "mask_capsules"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_labels_that_are_no_integers_are_refused(lib, name, dtype):
    words = ("labels have dtype", dtype, "integers")
    rejected(lambda: call(lib, name, labels=LABELS.astype(dtype)), InputTypeError, *words)


@every_array
def test_arrays_of_two_libraries_are_refused(lib, name, argument):
    if len(ARGUMENTS[name]) == 1:
        pytest.skip("one array is of one library")
    other = library("torch") if lib.name == "numpy" else NUMPY
    foreign = converted(ARGUMENTS[name][argument], other.asarray)
    arguments = {key: carried(lib, x) for key, x in ARGUMENTS[name].items()} | {argument: foreign}
    words = ("two libraries", other.name, lib.name.partition("-")[0], "convert")
    rejected(lambda: getattr(capsule, name)(**arguments), InputTypeError, *words)


@every_array
@pytest.mark.parametrize("value", [[0.5], "iris.csv", 3.0], ids=["list", "text", "number"])
def test_what_is_no_array_is_refused(name, argument, value):
    if argument == "init":
        rejected(lambda: call(NUMPY, name, init=value), InputError, "init", "(means, variances, weights)")
        value = (value, *START[1:])
    kind = type(value[0] if isinstance(value, tuple) else value).__qualname__
    rejected(lambda: call(NUMPY, name, **{argument: value}), InputTypeError, kind, "expected an array")


@pytest.mark.parametrize("name", [name for name in ARGUMENTS if len(ARGUMENTS[name]) > 1 and name != "gmm_routing"])
def test_arrays_on_two_devices_are_refused(name):
    for kind, device in (("torch", "meta"), ("array_api_strict", "device1")):
        lib = library(kind)
        device = lib.module.Device(device) if kind == "array_api_strict" else device
        for argument, x in ARGUMENTS[name].items():
            away = lib.module.ones(x.shape, dtype=lib.asarray(x).dtype, device=device)
            refused = lambda lib=lib, changes={argument: away}: call(lib, name, **changes)  # noqa: E731
            rejected(refused, InputTypeError, "two devices", "move one")


# Losses by hand


def assert_reductions(loss, each):
    np.testing.assert_allclose(loss("none"), each, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(loss("sum"), np.sum(each), rtol=1e-12)
    np.testing.assert_allclose(loss("mean"), np.mean(each), rtol=1e-12)


def test_the_margin_loss_is_what_it_is_by_hand(lib):
    lengths, labels = lib.asarray(LENGTHS), lib.asarray(LABELS)
    each = [0.5 * (0.2**2 + 0.7**2), 0.7**2]
    assert_reductions(lambda how: lib.to_numpy(margin_loss(lengths, labels, reduction=how)), each)
    other = margin_loss(lengths, labels, present=1.0, absent=0.0, down_weight=1.0, reduction="none")
    expected = [0.1**2 + 0.3**2 + 0.8**2, 0.8**2 + 0.05**2 + 0.1**2]
    np.testing.assert_allclose(lib.to_numpy(other), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "bool"])
def test_two_digits_in_one_image_are_both_targets(lib, dtype):
    targets = lib.asarray(np.array([[1, 0, 1], [0, 0, 0]]), dtype)
    got = margin_loss(lib.asarray(LENGTHS), targets, reduction="none")
    np.testing.assert_allclose(lib.to_numpy(got), [0.1**2 + 0.5 * 0.2**2, 0.5 * 0.1**2], rtol=1e-12)
    poses = np.arange(1.0, 13).reshape(2, 3, 2)
    masked = lib.to_numpy(mask_capsules(lib.asarray(poses), targets))
    np.testing.assert_array_equal(masked, poses * np.array([[1, 0, 1], [0, 0, 0]])[..., None])


def test_one_hot_targets_are_labels(eager_lib):
    for reduction in ("mean", "sum", "none"):
        got, expected = (
            eager_lib.to_numpy(margin_loss(eager_lib.asarray(LENGTHS), eager_lib.asarray(labels), reduction=reduction))
            for labels in (np.eye(3)[LABELS], LABELS)
        )
        np.testing.assert_array_equal(got, expected)


def test_the_spread_loss_is_what_it_is_by_hand(lib):
    activations, labels = lib.asarray(LENGTHS), lib.asarray(LABELS)
    each = [0.4**2, 0.35**2 + 0.4**2]
    assert_reductions(lambda how: lib.to_numpy(spread_loss(activations, labels, 0.5, reduction=how)), each)
    np.testing.assert_allclose(float(spread_loss(activations, labels, 0.0)), 0, atol=1e-15)
    np.testing.assert_allclose(
        float(spread_loss(activations, labels)), np.mean([0.3**2 + 0.8**2, 0.75**2 + 0.8**2]), rtol=1e-12
    )


def test_the_margin_may_be_an_array_of_one_number(lib):
    arrays = lib.asarray(LENGTHS), lib.asarray(LABELS)
    assert float(spread_loss(*arrays, lib.asarray(0.5))) == float(spread_loss(*arrays, 0.5))
    rejected(lambda: spread_loss(*arrays, lib.asarray([0.5, 0.6])), InputError, "margin", "(2,)", "one number")


def test_the_target_adds_nothing_to_the_spread_loss(lib):
    perfect = lib.asarray(np.eye(4)), lib.asarray(np.arange(4))
    assert float(spread_loss(*perfect, 0.9, reduction="sum")) == 0


def test_the_margin_of_the_spread_loss_grows_to_its_end():
    np.testing.assert_allclose([spread_margin(t) for t in (0, 1, 6, 7, 8, 1000)], [0.2, 0.3, 0.8, 0.9, 0.9, 0.9])
    sigmoid = {
        t: 1 / (1 + math.exp(-x))
        for t, x in ((0, -4), (50_000, -3), (125_000, -1.5), (200_000, 0), (700_000, 10), (10**7, 10))
    }
    for t, value in sigmoid.items():
        assert spread_margin(t, schedule="step") == pytest.approx(0.2 + 0.79 * value, abs=1e-12)


def test_a_margin_without_a_time_or_a_schedule_is_refused():
    rejected(lambda: spread_margin(-1), InputError, "t=-1", "at least 0")
    rejected(lambda: spread_margin(math.nan), InputError, "t=nan", "at least 0")
    rejected(lambda: spread_margin("late"), InputError, "t='late'")
    rejected(lambda: spread_margin(3, schedule="cosine"), InputError, "schedule='cosine'", "'epoch'", "'step'")


def test_the_reconstruction_loss_is_an_unscaled_sum_an_image(lib):
    images = np.arange(24.0).reshape(2, 2, 2, 3)
    wrong = images + np.array([1.0, 2.0])[:, None, None, None]
    for shape in ((2, 2, 2, 3), (2, 12)):
        made = lib.asarray(wrong.reshape(shape))
        each = [12.0, 48.0]
        assert_reductions(
            lambda how, made=made: lib.to_numpy(reconstruction_loss(made, lib.asarray(images), reduction=how)), each
        )
    flat = reconstruction_loss(*map(lib.asarray, (wrong.reshape(2, 12), images.reshape(2, 12))), reduction="none")
    np.testing.assert_allclose(lib.to_numpy(flat), [12.0, 48.0])
    rows = reconstruction_loss(lib.asarray(wrong), lib.asarray(images), n_axes=1, reduction="none")
    np.testing.assert_allclose(lib.to_numpy(rows), np.array([[[3.0] * 2] * 2, [[12.0] * 2] * 2]))


def test_losses_of_many_batch_axes_have_them_all(eager_lib):
    lengths, labels = (
        eager_lib.asarray(np.stack([LENGTHS, LENGTHS + 0.01])),
        eager_lib.asarray(np.stack([LABELS, LABELS[::-1]])),
    )
    for loss in (margin_loss, spread_loss):
        whole = eager_lib.to_numpy(loss(lengths, labels, reduction="none"))
        assert whole.shape == (2, 2)
        for at in np.ndindex(2, 2):
            alone = loss(lengths[(*at, ...)], labels[at], reduction="none")
            np.testing.assert_allclose(whole[at], float(alone), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_keep_the_precision(eager_lib, dtype):
    lengths, labels = eager_lib.asarray(LENGTHS, dtype), eager_lib.asarray(LABELS, "int32")
    images = eager_lib.asarray(np.ones((2, 2, 2)), dtype)
    for loss in (margin_loss(lengths, labels), spread_loss(lengths, labels), reconstruction_loss(images, 0 * images)):
        assert eager_lib.to_numpy(loss).dtype == np.dtype(dtype)
        assert loss.shape == ()


# Masks and tweaks


def test_a_mask_leaves_the_label_or_the_longest(lib):
    poses = np.array([[[3.0, 4], [1, 0], [0, -2]], [[0, 1], [2, 2], [0, 3]]])
    kept = lib.to_numpy(mask_capsules(lib.asarray(poses), lib.asarray(np.array([2, 0]))))
    np.testing.assert_array_equal(kept, [[[0, 0], [0, 0], [0, -2]], [[0, 1], [0, 0], [0, 0]]])
    longest = lib.to_numpy(mask_capsules(lib.asarray(poses)))
    np.testing.assert_array_equal(longest, [[[3, 4], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 3]]])
    one = lib.to_numpy(mask_capsules(lib.asarray(poses[0])))
    np.testing.assert_array_equal(one, longest[0])


def test_labels_of_small_dtypes_stand_for_themselves_alone(eager_lib):
    n = 300
    masked = eager_lib.to_numpy(
        mask_capsules(eager_lib.asarray(np.ones((1, n, 1))), eager_lib.asarray(np.array([10]), "uint8"))
    )
    assert np.flatnonzero(masked).tolist() == [10]


def test_a_tweak_moves_one_entry_by_each_step(lib):
    poses, steps = np.array([[1.0, 2, 3], [4, 5, 6]]), [-0.25, 0.0, 0.25, 1.0]
    found = lib.to_numpy(tweak_poses(lib.asarray(poses), steps=steps))
    assert found.shape == (2, 3, 4, 3)
    for sample, entry, t in np.ndindex(2, 3, 4):
        expected = poses[sample] + steps[t] * np.eye(3)[entry]
        np.testing.assert_allclose(found[sample, entry, t], expected, rtol=1e-14)
    wide = lib.to_numpy(tweak_poses(lib.asarray(poses)))
    np.testing.assert_allclose(wide[0, 1, :, 1] - 2, np.linspace(-0.5, 0.5, 11), atol=1e-12)


def test_squash_gains_are_what_its_page_says():
    lengths = np.linspace(1e-3, 5, 20_001)[:, None]
    for constant, gain in ((1.0, 0.5), (0.5, math.sqrt(0.5))):
        gains = squash(lengths, constant=constant) / lengths
        assert gains.max() == pytest.approx(gain, abs=1e-7)
        assert lengths[gains.argmax(), 0] == pytest.approx(math.sqrt(constant), abs=1e-3)
