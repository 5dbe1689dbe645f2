"""Networks exported to ONNX find in onnxruntime what they find on Torch, in batches of any size."""

import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from emroute import capsule
from emroute.nn.torch import CapsNet, MatrixCapsNet

NETWORKS = {
    "CapsNet": (
        CapsNet,
        {
            "image_size": 8,
            "channels": 4,
            "kernel_size": 3,
            "primary_capsules": 2,
            "n_iter": 2,
            "decoder_features": (4,),
        },
        1e-6,
    ),
    "MatrixCapsNet": (
        MatrixCapsNet,
        {"image_size": 17, "widths": (3, 2, 2, 2), "n_iter": 1, "decoder": True, "decoder_features": (4,)},
        1e-5,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_finds_the_same_in_any_batch(name, tmp_path):
    make, options, tolerance = NETWORKS[name]
    torch.manual_seed(0)
    network = make(1, 3, **options).eval()
    few, many, one = (torch.rand(n, *network.image_shape) for n in (2, 30, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Torch's exporter and what it uses
        shapes = ({0: torch.export.Dim("batch")},)
        made = torch.onnx.export(network, (few,), dynamo=True, dynamic_shapes=shapes, verbose=False)
        made.save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    for x in (few, many, one):
        found = session.run(None, {images.name: x.numpy()})
        with torch.no_grad():
            expected = network(x)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs.numpy(), rtol=0, atol=tolerance)


ROUTED = {
    "em": lambda x: capsule.em_routing(x, x[..., 0, 0].sigmoid(), x.new_zeros(3), x.new_zeros(3)).poses,
    "kmeans": lambda x: capsule.kmeans_routing(x).poses,
    "margin loss": lambda x: capsule.margin_loss(x[..., 0, :], x[..., 0, 0].long() * 0),
    "of targets": lambda x: capsule.margin_loss(x[..., 0, :], (x[..., 0, :] > 9).float()),
}


@pytest.mark.parametrize("name", ROUTED)
def test_checks_of_values_are_not_exported(name):
    """Nobody reads their results in a graph, and exporters have no words for some of their operations."""

    class Routed(torch.nn.Module):
        def forward(self, x):
            return ROUTED[name](x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.export.export(Routed(), (torch.ones(2, 4, 3, 5),))
    used = [node for node in made.graph.nodes if node.op == "call_function"]
    unread = {str(node.target).split(".")[1] for node in used if not node.users}
    assert not unread & {"all", "amax", "amin", "bitwise_and", "isfinite", "logical_and", "max", "min"}
