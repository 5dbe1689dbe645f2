"""Networks and their layers: Torch and Flax against `emroute.capsule`, and against each other."""

import copy
import importlib
import inspect
import io
import re
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.utils.checkpoint import checkpoint

from emroute import capsule
from emroute.nn import CapsuleOutput, capsnet_loss
from emroute.nn.layer import Layer
from tests.networks import FLAX, FRAMEWORKS, KINDS, TORCH, Kind, digits


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


class Twins(NamedTuple):
    """One network in both frameworks, Flax's from Torch's file, and 64 digits."""

    kind: Kind
    torch: Any
    flax: Any
    path: Any
    x: np.ndarray
    y: np.ndarray

    def copies(self) -> "Twins":
        return self._replace(torch=copy.deepcopy(self.torch), flax=nnx.clone(self.flax))


@pytest.fixture(scope="module", params=KINDS)
def twins(request, tmp_path_factory):
    kind = KINDS[request.param]
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    network = TORCH.make(kind.name, 1, 10, kind.size, **kind.options)
    TORCH.nn.save(network, path)
    return Twins(kind, network, FLAX.nn.load(path), path, *digits(kind.scale, kind.edge))


@pytest.fixture(scope="module")
def flax_step(twins):
    """Loss, output and gradients on the digits, compiled once for all tests."""
    x, y = FLAX.images(twins.x), jnp.asarray(twins.y)

    def loss(network):
        output = network(x, y)
        return twins.kind.loss(output, x, y), output

    return nnx.jit(nnx.value_and_grad(loss, has_aux=True))


def torch_step(twins, network):
    x, y = TORCH.images(twins.x), torch.asarray(twins.y)
    network.zero_grad()
    output = network(x, y)
    loss = twins.kind.loss(output, x, y)
    loss.backward()
    return loss.item(), output


def as_torch(name, value):
    """A weight of Flax as Torch has it, written out."""
    if not name.endswith("kernel"):
        return name, value
    turned = value.T if value.ndim == 2 else np.moveaxis(value, (3, 2), (0, 1))
    return name.replace("kernel", "weight"), turned


def assert_close(found, expected, tolerance):
    """Within `tolerance` of the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1e-3, np.max(np.abs(expected))))


# Texts


def test_a_framework_defines_what_a_layer_leaves_open(framework):
    left_open = [
        name
        for name, value in vars(Layer).items()
        if inspect.isfunction(value) and "raise NotImplementedError" in inspect.getsource(value)
    ]
    own = importlib.import_module(f"{framework.nn.__name__}.layers").Layer
    assert left_open
    assert [name for name in left_open if name not in vars(own)] == []


@pytest.mark.parametrize("name", [name for name in TORCH.nn.__all__ if name[0].isupper()])
def test_help_has_what_is_shared_and_what_is_the_frameworks_own(framework, name):
    cls = getattr(framework.nn, name)
    text, parameters = inspect.getdoc(cls), inspect.signature(cls.__init__).parameters
    own = {"torch": ["device", "dtype"], "flax": ["dtype", "param_dtype", "rngs"]}[framework.name]
    assert list(parameters)[-len(own) :] == own
    assert not [each for each in parameters.values() if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    assert all(re.search(rf"\b{each}\b", text) for each in parameters if each != "self")
    assert text.count("Examples\n---") == text.count("Parameters\n---") == text.count("References\n---") == 1
    other = inspect.signature(getattr(FRAMEWORKS["torch" if framework is FLAX else "flax"].nn, name).__init__)
    shared = {key: value for key, value in parameters.items() if key not in own}
    assert shared == {key: other.parameters[key] for key in shared}


# Sizes


@pytest.mark.parametrize(
    ("name", "arguments", "options", "count"),
    [
        ("CapsNet", (), {}, 8_215_568),
        ("CapsNet", (), {"decoder": False}, 6_804_224),
        ("MatrixCapsNet", (2, 5, 32), {}, 316_650),
        ("MatrixCapsNet", (2, 5, 32), {"widths": (64, 8, 16, 16)}, 68_618),
    ],
)
def test_parameters_are_as_many_as_the_papers_have(framework, name, arguments, options, count):
    assert framework.count(framework.outline(name, *arguments, **options)) == count


@pytest.mark.parametrize(
    ("name", "channels", "size", "options"),
    [
        ("CapsNet", 3, (13, 16), {"kernel_size": 4, "channels": 5, "primary_capsules": 2}),
        ("CapsNet", 1, (28, 28), {"channels": 4, "primary_capsules": 2, "decoder": False}),
        ("MatrixCapsNet", 2, (18, 33), {"widths": (5, 2, 3, 4), "pose_size": 3, "decoder": True}),
        ("MatrixCapsNet", 1, (24, 17), {"widths": (5, 2, 3, 4), "entries": None, "cost": "normalized"}),
    ],
)
def test_images_of_any_size_and_number_of_channels(framework, name, channels, size, options):
    make = framework.make if framework is TORCH else framework.outline
    network = make(name, channels, 7, size, **options)
    images = framework.images(np.zeros((2, channels, *size), np.float32))
    poses, activations, *drawn = framework.shapes(network, images)
    width = 16 if name == "CapsNet" else options.get("pose_size", 4) ** 2
    assert (poses, activations) == ((2, 7, width), (2, 7))
    assert drawn == ([images.shape] if network.decoder is not None else [])


# Layers


def test_primary_capsules_are_the_channels_of_one_position(framework):
    """In order of positions, and of kinds at each."""
    layer = framework.make("PrimaryCapsules", 2, 3, 4, 1, relu=True)
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 5)).astype(np.float32)
    weights = dict(as_torch(*item) for item in framework.weights(layer).items())
    channels = np.einsum("bchw,oc->bhwo", x, weights["conv.weight"][..., 0, 0]) + weights["conv.bias"]
    expected = capsule.squash(np.maximum(channels, 0).reshape(2, 3 * 5 * 3, 4))
    assert_close(framework.to_numpy(layer(framework.images(x))), expected, 1e-6)


def test_matrix_primary_capsules_are_the_channels_of_one_position(framework):
    layer = framework.make("MatrixPrimaryCapsules", 2, 3, pose_size=2, bias=True)
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 5)).astype(np.float32)
    weights = dict(as_torch(*item) for item in framework.weights(layer).items())
    channels = np.einsum("bchw,oc->bhwo", x, weights["conv.weight"][..., 0, 0]) + weights["conv.bias"]
    poses, activations = map(framework.to_numpy, layer(framework.images(x)))
    assert_close(poses, channels[..., :12].reshape(2, 3, 5, 3, 2, 2), 1e-6)
    assert_close(activations, 1 / (1 + np.exp(-channels[..., 12:])), 1e-6)


@pytest.mark.parametrize("layer", ["PrimaryCapsules", "MatrixPrimaryCapsules"])
def test_a_pixel_reaches_only_the_capsules_whose_window_holds_it(framework, layer, quick_compilation):
    arguments = (1, 2, 4, (3, 2)) if layer == "PrimaryCapsules" else (1, 2)
    options: dict[str, Any] = {"stride": (1, 2), "padding": (1, 0)}
    options |= {} if layer == "PrimaryCapsules" else {"kernel_size": (3, 2)}
    made = framework.make(layer, *arguments, **options)
    x = np.random.default_rng(0).normal(size=(1, 1, 5, 6)).astype(np.float32)
    other = x.copy()
    other[..., 4, 3] += 1  # rows 3 and 4 of 5, column 1 of 3
    first, second = (made(framework.images(images)) for images in (x, other))
    if layer == "MatrixPrimaryCapsules":
        first, second = first[0], second[0]
    moved = framework.to_numpy(first) != framework.to_numpy(second)
    expected = np.zeros((5, 3), bool)
    expected[3:, 1] = True
    np.testing.assert_array_equal(moved.reshape(5, 3, -1).all(axis=-1), expected)
    np.testing.assert_array_equal(moved.reshape(5, 3, -1).any(axis=-1), expected)


def layer_and_call(name, framework, rng):
    """A layer with weights that tell something, its arguments, and the same by `emroute.capsule` on NumPy."""
    if name == "DynamicRouting":
        layer = framework.make(name, 6, 3, 4, 5, bias=True, n_iter=2, leaky=True)
        u = rng.normal(size=(2, 6, 4)).astype(np.float32)
        arrays, options = (u,), {"n_iter": 2, "leaky": True}
    else:
        common = {"pose_size": 2, "n_iter": 2, "inverse_temperature": (0.5, 1.0), "epsilon": 1e-3}
        own = {"stride": 2, "padding": 1} if name == "ConvCapsules" else {"entries": (1, 3)}
        layer = framework.make(name, 2, 3, *((3,) if name == "ConvCapsules" else ()), **own, **common)
        arrays = rng.normal(size=(2, 4, 5, 2, 2, 2)), rng.uniform(0.1, 0.9, size=(2, 4, 5, 2))
        arrays = tuple(x.astype(np.float32) for x in arrays)
        del common["pose_size"]
        options = own | common
    drawn = {key: rng.normal(size=value.shape).astype(np.float32) for key, value in framework.weights(layer).items()}
    if framework is TORCH:
        layer.load_state_dict({key: torch.tensor(value) for key, value in drawn.items()})
    else:
        for key, value in drawn.items():
            getattr(layer, key)[...] = jnp.asarray(value)

    def plain(*arrays):
        if name == "DynamicRouting":
            votes = np.einsum("bid,ijdh->bijh", arrays[0], drawn["transforms"])
            return capsule.dynamic_routing(votes, bias=drawn["bias"], **options)
        route = capsule.conv_em_routing if name == "ConvCapsules" else capsule.class_em_routing
        return route(*arrays, drawn["transforms"], drawn["beta_u"], drawn["beta_a"], **options)

    return layer, arrays, plain


@pytest.mark.parametrize("name", ["DynamicRouting", "ConvCapsules", "ClassCapsules"])
def test_a_layer_is_its_function(framework, name, quick_compilation):
    layer, arrays, plain = layer_and_call(name, framework, np.random.default_rng(0))
    found, path = layer(*map(framework.asarray, arrays), return_path=True)
    for mine, expected in zip(found, plain(*arrays), strict=True):
        assert_close(framework.to_numpy(mine), expected, 1e-5)
    assert len(path) == 2


# One file, two frameworks


def test_both_frameworks_find_the_same(twins, flax_step):
    (_, found), _ = flax_step(twins.flax)
    _, expected = torch_step(twins, twins.torch)
    assert_close(FLAX.to_numpy(found.poses), TORCH.to_numpy(expected.poses), 1e-5)
    assert_close(FLAX.to_numpy(found.activations), TORCH.to_numpy(expected.activations), 1e-5)
    drawn = FLAX.to_numpy(found.reconstructions, images=True)
    assert_close(drawn, TORCH.to_numpy(expected.reconstructions), 1e-5)


def test_both_frameworks_have_the_same_gradients(twins, flax_step):
    (loss, _), gradients = flax_step(twins.flax)
    expected, _ = torch_step(twins, twins.torch)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    theirs = {name: weight.grad.numpy() for name, weight in twins.torch.named_parameters()}
    flat = {".".join(map(str, place)): np.asarray(value[...]) for place, value in nnx.to_flat_state(gradients)}
    ours = dict(as_torch(*item) for item in flat.items())
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert_close(gradient, theirs[name], 1e-4)


def test_both_frameworks_learn_alike(twins, flax_step):
    """Twenty steps of gradient descent."""
    twins, losses = twins.copies(), []
    rate = twins.kind.rate
    descent = torch.optim.SGD(twins.torch.parameters(), lr=rate)
    for _ in range(20):
        (loss, _), gradients = flax_step(twins.flax)
        weights = nnx.state(twins.flax, nnx.Param)
        nnx.update(twins.flax, jax.tree.map(lambda w, g: w - rate * g, weights, gradients))
        losses.append((float(loss), torch_step(twins, twins.torch)[0]))
        descent.step()
    ours, theirs = np.transpose(losses)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    assert ours[-1] < 0.5 * ours[0]


def test_weights_come_back_bit_by_bit(twins, tmp_path):
    there, back = tmp_path / "there.safetensors", tmp_path / "back.safetensors"
    FLAX.nn.save(twins.flax, there)
    network = TORCH.nn.load(there)
    assert not network.training
    assert network.arguments == twins.torch.arguments == twins.flax.arguments
    TORCH.nn.save(network, back)
    assert twins.path.read_bytes() == there.read_bytes() == back.read_bytes()
    for name, value in twins.torch.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_files_keep_the_dtype(dtype, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    network = TORCH.make("MatrixCapsNet", image_size=17, widths=(3, 2, 2, 2)).to(getattr(torch, dtype))
    TORCH.nn.save(network, first)
    FLAX.nn.save(loaded := FLAX.nn.load(first), second)
    assert loaded.conv.kernel.dtype == getattr(jnp, dtype)
    for name, value in TORCH.nn.load(second).state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_a_loaded_network_trains(tmp_path):
    TORCH.nn.save(TORCH.make("MatrixCapsNet", image_size=17, widths=(3, 2, 2, 2)), tmp_path / "it")
    network = TORCH.nn.load(tmp_path / "it")
    network(torch.rand(1, 1, 17, 17)).activations.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())


# Training


def test_torch_learns_64_digits(twins):
    network, y = copy.deepcopy(twins.torch), torch.asarray(twins.y)
    adam = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        _, output = torch_step(twins, network)
        if (output.activations.argmax(-1) == y).all():
            return
        adam.step()
    pytest.fail("digits are confused after 100 steps")


def test_flax_learns_64_digits(twins, flax_step):
    network = nnx.clone(twins.flax)
    adam = nnx.Optimizer(network, optax.adam(0.01), wrt=nnx.Param)
    update = nnx.jit(lambda adam, network, gradients: adam.update(network, gradients))
    for _ in range(100):
        (_, output), gradients = flax_step(network)
        if (np.argmax(output.activations, axis=-1) == twins.y).all():
            return
        update(adam, network, gradients)
    pytest.fail("digits are confused after 100 steps")


# Reconstructions


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """One `CapsNet` in each framework, and three images."""
    path = tmp_path_factory.mktemp("small") / "network.safetensors"
    options = {"channels": 6, "kernel_size": 3, "primary_capsules": 2, "primary_features": 3, "class_features": 4}
    TORCH.nn.save(TORCH.make("CapsNet", 1, 4, 8, **options), path)  # Flax compiles each draw
    x = np.random.default_rng(0).uniform(size=(3, 1, 8, 8)).astype(np.float32)
    return {name: framework.nn.load(path) for name, framework in FRAMEWORKS.items()}, x


def test_images_are_drawn_from_the_predicted_class_or_from_the_one_asked_for(framework, small, quick_compilation):
    network, x = small[0][framework.name], framework.images(small[1])
    predicted = network(x)
    shown = predicted.activations.argmax(-1)
    drawn = framework.to_numpy(predicted.reconstructions)
    np.testing.assert_array_equal(drawn, framework.to_numpy(network(x, shown).reconstructions))
    targets = framework.asarray(np.eye(4, dtype=np.float32)[framework.to_numpy(shown)])
    np.testing.assert_array_equal(drawn, framework.to_numpy(network(x, targets).reconstructions))
    assert not np.allclose(drawn, framework.to_numpy(network(x, (shown + 1) % 4).reconstructions))
    assert drawn.min() > 0
    assert drawn.max() < 1


def test_tweaked_poses_are_drawn(framework, small, quick_compilation):
    network, x = small[0][framework.name], framework.images(small[1])
    poses, _ = network.encode(x)
    tweaked = capsule.tweak_poses(poses[0, 2], steps=(-0.25, 0.0, 0.25))  # (H, 3, H)
    every = framework.asarray(np.zeros((12, 4, 4), np.float32))
    if framework is TORCH:
        every[:, 2] = tweaked.reshape(12, 4).detach()
    else:
        every = every.at[:, 2].set(tweaked.reshape(12, 4))
    labels = framework.asarray(np.full(12, 2))
    drawn = framework.to_numpy(network.reconstruct(every, labels), images=True)
    assert drawn.shape == (12, 1, 8, 8)
    untouched = framework.to_numpy(network.reconstruct(poses, framework.asarray(np.full(3, 2))), images=True)[0]
    np.testing.assert_allclose(drawn[1::3], np.broadcast_to(untouched, (4, 1, 8, 8)), atol=1e-6)
    assert np.ptp(drawn[::3], axis=0).max() > 1e-5


# What users of Torch do


@pytest.fixture(params=KINDS)
def torch_network(request):
    """A network, its loss as a function of a network or what calls it, and images."""
    kind = KINDS[request.param]
    network = TORCH.make(kind.name, 1, 10, kind.size, **kind.options)
    x, y = digits(kind.scale, kind.edge)
    x, y = torch.tensor(x[:4]), torch.tensor(y[:4])

    def gradients(call):
        network.zero_grad()
        loss = kind.loss(call(x, y), x, y)
        loss.backward()
        return loss.item(), [weight.grad.clone() for weight in network.parameters()]

    return network, x, gradients


def assert_same_gradients(found, expected, tolerance=1e-5):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        assert_close(mine, theirs.numpy(), tolerance)


def test_checkpoints(torch_network):
    network, _, gradients = torch_network
    found = gradients(lambda x, y: checkpoint(network, x, y, use_reentrant=False))
    assert_same_gradients(found, gradients(network), 1e-6)


def test_compiles(torch_network):
    network, _, gradients = torch_network
    expected = gradients(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile minds array-api-compat's caches
        whole = isinstance(network, TORCH.nn.CapsNet)
        found = gradients(torch.compile(network, backend="aot_eager", fullgraph=whole))
    assert_same_gradients(found, expected)


def test_exports_for_batches_of_any_size_and_saves(tmp_path):
    options = {"channels": 8, "kernel_size": 3, "primary_capsules": 4, "class_features": 8, "decoder_features": (8,)}
    network = TORCH.make("CapsNet", 1, 10, 8, **options)
    few, many = (torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) for n in (2, 1000))
    network(few)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Torch's own
        made = torch.export.export(network, (few,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(made, tmp_path / "network.pt2")
        found = torch.export.load(tmp_path / "network.pt2").module()(many)
    assert isinstance(found, CapsuleOutput)
    for mine, theirs in zip(found, network(many), strict=True):
        assert_close(mine.detach(), theirs.detach().numpy(), 1e-6)


def test_autocasts(torch_network):
    network, x, gradients = torch_network
    expected, _ = gradients(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, found = gradients(network)
        assert network(x).poses.dtype == torch.bfloat16
    assert loss == pytest.approx(expected, rel=0.05)
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in found)


def test_copies_pickles_and_moves(torch_network):
    network, x, _ = torch_network
    expected, file = network(x), io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    read = torch.load(file, weights_only=False)
    fresh = type(network)(**network.arguments)
    fresh.load_state_dict(network.state_dict())
    for same in (copy.deepcopy(network), read, fresh):
        for mine, theirs in zip(same(x), expected, strict=True):
            assert torch.equal(mine, theirs)
    wide = network.to(torch.float64)(x.to(torch.float64))
    assert wide.poses.dtype == torch.float64
    assert_close(wide.activations.detach().numpy(), expected.activations.detach().numpy(), 1e-5)
    half = network.to(torch.bfloat16)(x.to(torch.bfloat16))
    assert [part.dtype for part in half] == [torch.bfloat16, torch.float32, torch.bfloat16]


def test_made_without_storage_and_filled_later(torch_network):
    network, x, _ = torch_network
    with torch.device("meta"):
        hollow = type(network)(**network.arguments)
        shapes = [part.shape for part in hollow(torch.empty(x.shape))]
    assert shapes == [part.shape for part in network(x)]
    assert all(weight.is_meta for weight in hollow.parameters())
    hollow.to_empty(device="cpu")
    for module in hollow.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert all(part.isfinite().all() for part in hollow(x))
    assert all(weight.isfinite().all() and weight.abs().max() < 5 for weight in hollow.parameters())


def test_repr_tells_what_layers_are():
    text = repr(TORCH.make("MatrixCapsNet", decoder=True))
    assert "ConvCapsules(32, 32, kernel_size=3, pose_size=4, n_iter=3, cost='hinton', stride=2, padding=0)" in text
    text = repr(TORCH.make("CapsNet"))
    assert "DynamicRouting(1152, 10, in_features=8, out_features=16, n_iter=3, bias=False)" in text
    assert "Decoder(\n    in_features=160, out_shape=(1, 28, 28)" in text


# What users of Flax do


def test_flax_transforms(small, quick_compilation):
    """`remat`, `split` and `merge`, `jax.jit` of it all: the same gradients as those of the network."""
    network, x, y = small[0]["flax"], FLAX.images(small[1]), jnp.asarray([0, 1, 2])

    def loss(network, call=lambda network, x, y: network(x, y)):
        return capsnet_loss(call(network, x, y), x, y)

    structure, weights = nnx.split(network)
    again = nnx.remat(lambda network, x, y: network(x, y))
    found = jax.jit(jax.grad(lambda weights: loss(nnx.merge(structure, weights), again)))(weights)
    expected = nnx.jit(nnx.grad(loss))(network)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
    jitted, eager = nnx.jit(lambda network, x, y: network(x, y))(network, x, y), network(x, y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), jitted, eager)


def test_flax_has_dtypes_for_parameters_and_for_computations():
    for name, size in (("CapsNet", 28), ("MatrixCapsNet", 17)):
        network = FLAX.outline(name, image_size=size, param_dtype=jnp.float16, dtype=jnp.bfloat16)
        assert {x.dtype for x in jax.tree.leaves(nnx.state(network))} == {jnp.dtype("float16")}
        output = jax.eval_shape(lambda n, x: n(x), network, jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32))
        assert {x.dtype for x in (output.poses, *jax.tree.leaves(output.reconstructions))} == {jnp.dtype("bfloat16")}
        assert output.activations.dtype == jnp.float32


def test_a_second_network_of_the_same_shape_compiles_nothing():
    traced = []

    @nnx.jit
    def run(network, x):
        traced.append(network)
        return network(x)

    x = jnp.zeros((1, 3, 2))
    for seed in range(2):
        run(FLAX.make("DynamicRouting", 3, 2, 2, 2, n_iter=1, seed=seed), x)
    assert len(traced) == 1
