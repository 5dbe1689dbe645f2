"""Networks that embed the routing, for Torch and Flax; `emroute.nn.torch` and `emroute.nn.flax` have the same parts.

Both are thin layers over `emroute.capsule`. One file of weights serves both: `save` of the one, `load` of the other.
"""

from emroute.nn.outputs import CapsuleOutput, capsnet_loss, matrix_capsnet_loss

__all__ = ["CapsuleOutput", "capsnet_loss", "matrix_capsnet_loss"]
