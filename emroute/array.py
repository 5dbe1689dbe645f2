"""What the Array API standard lacks, from the standard alone; each works on every library and under tracing."""

from emroute.arrays.creation import broadcast, constant, full, itemsize, one_hot, set_at, swap
from emroute.arrays.functions import (
    divide,
    eps,
    log_sigmoid,
    log_softmax,
    logsumexp,
    normalize,
    safe_log,
    safe_norm,
    softmax,
    tiny,
)
from emroute.arrays.tracing import concrete, either, traced
from emroute.arrays.trees import leaves, map_leaves, rebuild

__all__ = [
    "broadcast",
    "concrete",
    "constant",
    "divide",
    "either",
    "eps",
    "full",
    "itemsize",
    "leaves",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "map_leaves",
    "normalize",
    "one_hot",
    "rebuild",
    "safe_log",
    "safe_norm",
    "set_at",
    "softmax",
    "swap",
    "tiny",
    "traced",
]
