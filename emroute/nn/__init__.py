"""Networks that embed the routing, for Torch and Flax; `emroute.nn.torch` and `emroute.nn.flax` have the same parts.

Both are thin layers over `emroute.capsule`. One file of weights serves both: `save` of the one, `load` of the other.
"""

import importlib
from types import ModuleType

from emroute.nn.constellations import ConstellationOutput, constellation_loss
from emroute.nn.objects import Objects
from emroute.nn.outputs import CapsuleOutput, capsnet_loss, matrix_capsnet_loss

__all__ = [
    "CapsuleOutput",
    "ConstellationOutput",
    "Objects",
    "capsnet_loss",
    "constellation_loss",
    "matrix_capsnet_loss",
]


def __getattr__(name: str) -> ModuleType:
    """Load what needs a framework when it is first asked for."""
    if name in ("flax", "torch"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
