"""Set transformer, object capsules, constellations: symmetries, both frameworks, and a net that learns."""

import numpy as np
import pytest
import torch

import constellations
import train_constellations
from emroute import capsule
from emroute.errors import InputError
from emroute.nn import constellation_loss
from emroute.nn import flax as flax_nn
from emroute.nn import torch as torch_nn
from tests.helpers import rejected

RNG = np.random.default_rng(0)
SMALL = {"features": 8, "out_features": 8, "n_layers": 2, "n_heads": 2}


def transformer():
    torch.manual_seed(0)
    return torch_nn.SetTransformer(2, 8, 4, 3, n_layers=2, n_heads=2)


def test_the_order_of_a_set_does_not_matter():
    x, presence, order = torch.randn(2, 6, 2), torch.rand(2, 6), torch.randperm(6)
    layer = transformer()
    torch.testing.assert_close(layer(x, presence), layer(x[:, order], presence[:, order]))


def test_what_is_not_there_is_not_seen():
    x, layer = torch.randn(2, 6, 2), transformer()
    presence = torch.ones(2, 6)
    presence[:, 4:] = 0
    more = x.clone()
    more[:, 4:] = 100
    torch.testing.assert_close(layer(x, presence), layer(more, presence))
    torch.testing.assert_close(layer(x, presence), layer(x[:, :4]))
    empty = layer(x, torch.zeros(2, 6))
    assert torch.isfinite(empty).all()


def test_attention_is_a_softmax_weighted_by_presence():
    """One query, one head, written out."""
    layer = transformer()
    x, presence = torch.randn(1, 5, 4), torch.rand(1, 5)
    layer.n_heads = 1

    def linear(name, y):
        return y @ getattr(layer, f"pool_{name}_weight") + getattr(layer, f"pool_{name}_bias")

    queries = layer.queries[None, :1]
    weight = presence * torch.exp(linear("query", queries) @ linear("key", x).mT / 2)
    expected = linear("out", weight / weight.sum(-1, keepdim=True) @ linear("value", x))
    torch.testing.assert_close(layer._attend("pool", queries, x, presence.log()), expected)


def test_objects_vote_by_their_poses():
    torch.manual_seed(0)
    layer = torch_nn.ObjectCapsules(3, 4, 5, similarity=True)
    found = layer(torch.randn(2, 3, 5))
    parts = capsule.affine_poses(layer.static + found.changes, similarity=True)
    torch.testing.assert_close(found.votes, capsule.compose_poses(found.poses[:, :, None], parts))
    assert torch.all(found.scales > 0.01)
    torch.testing.assert_close(found.presence, found.log_weights.exp().max(-1).values)
    louder = layer(torch.zeros(1, 3, 5), (torch.full((1, 3), 2.0), torch.zeros(1, 3, 4)))
    torch.testing.assert_close(louder.logits, layer(torch.zeros(1, 3, 5)).logits + 2)


def test_objects_share_no_weights():
    layer = torch_nn.ObjectCapsules(3, 4, 5)
    features = torch.randn(1, 1, 5).expand(1, 3, 5)
    found = layer(features)
    assert not torch.allclose(found.logits[0, 0], found.logits[0, 1])


def test_one_file_of_constellations_serves_both_frameworks(tmp_path):
    torch.manual_seed(0)
    network = torch_nn.ConstellationNet(**SMALL)
    torch_nn.save(network, tmp_path / "torch")
    points, presence = RNG.normal(size=(2, 5, 2)).astype("f"), np.ones((2, 5), "f")
    expected = network(torch.tensor(points), torch.tensor(presence))
    other = flax_nn.load(tmp_path / "torch")
    got = other(*map(flax_nn.layers.jnp.asarray, (points, presence)))
    np.testing.assert_allclose(got.log_prob, expected.log_prob.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.responsibilities, expected.responsibilities.detach(), rtol=1e-4, atol=1e-5)
    flax_nn.save(other, tmp_path / "flax")
    assert (tmp_path / "flax").read_bytes() == (tmp_path / "torch").read_bytes()


def test_the_loss_falls_and_all_learn():
    data, (network, step, predict) = constellations.draw(RNG, 16), train_constellations.torch_step(0, lambda n: 3e-3)
    noise = np.zeros((16, 3), "f"), np.zeros((16, 3, 4), "f")
    losses = [step(number, data.points, data.presence, *noise) for number in range(25)]
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.isfinite(weight.grad).all() and weight.grad.any() for weight in network.parameters())
    wrong, total = constellations.errors(data, predict(data.points, data.presence))
    assert 0 <= wrong < total == data.presence.sum()


def test_a_net_of_empty_examples_has_a_gradient():
    network = torch_nn.ConstellationNet(**SMALL)
    points, presence = torch.zeros(2, 5, 2), torch.zeros(2, 5)
    constellation_loss(network(points, presence), presence).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_errors_are_counted_after_the_best_matching():
    data = constellations.draw(np.random.default_rng(1), 8)
    right = np.eye(3)[(data.patterns + 1) % 3]
    assert constellations.errors(data, right)[0] == 0
    one = np.zeros_like(right)
    one[..., 0] = 1
    wrong, total = constellations.errors(data, one)
    assert wrong == sum(
        int(there.sum()) - max(np.bincount(kind[there > 0], minlength=1), default=0)
        for there, kind in zip(data.presence, data.patterns, strict=True)
    )
    assert total == data.presence.sum()


def test_points_lie_in_the_square():
    data = constellations.draw(np.random.default_rng(2), 200)
    assert np.abs(data.points).max() == pytest.approx(1, abs=1e-6)
    assert abs(data.presence.mean() - 0.5) < 0.05
    assert {tuple(np.unique(row)) for row in data.patterns} == {(0, 1, 2)}


def test_shapes_that_do_not_fit_are_refused():
    rejected(lambda: transformer()(torch.zeros(6, 2)), InputError, "sets have shape (6, 2)")
    rejected(lambda: torch_nn.SetTransformer(2, 7, 4, 3, n_heads=2), InputError, "n_heads=2", "7")
    rejected(lambda: torch_nn.ObjectCapsules(3, 4, 5)(torch.zeros(2, 4, 5)), InputError, "(2, 4, 5)", "(B, 3,")
    rejected(lambda: torch_nn.ConstellationNet()(torch.zeros(2, 4, 3)), InputError, "(2, 4, 3)", "(B, P, 2)")
