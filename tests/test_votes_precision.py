"""The votes of the vector layer in Flax are of full float32 precision, whatever the user's default."""

import pytest


def test_votes_and_their_gradients_are_of_the_highest_precision():
    jax = pytest.importorskip("jax")
    nnx = pytest.importorskip("flax.nnx")
    from emroute.nn.flax import DynamicRouting

    layer = DynamicRouting(3, 5, 4, 6, rngs=nnx.Rngs(0))
    highest = (jax.lax.Precision.HIGHEST,) * 2
    traced = jax.make_jaxpr(jax.grad(lambda poses: layer.votes(poses).sum()))(jax.numpy.ones((2, 3, 4)))
    products = [e.params["precision"] for e in traced.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert products
    assert all(precision == highest for precision in products)
