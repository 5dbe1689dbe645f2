"""The sections of docs/benchmarks.md, in their order: what each measures, and the names of its columns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    heading: str
    measured: str
    """What was measured, and what its sizes mean: a sentence."""
    columns: tuple[str, ...]
    how: str = ""
    """What is to be said of the peers; it follows their names."""
    ours: str = "emroute"
    unit: str = "s"
    better: str = "faster"
    worse: str = "slower"


SIZES = "sizes are rows × features, and k is the number of"

KMEANS = Section(
    "k-means against scikit-learn",
    f"Ten iterations of k-means (three for 784 features) on float32 rows in k overlapping groups; {SIZES} clusters.",
    ("size",),
    " with Lloyd's algorithm and the same start, the first k rows",
)
KMEANS_OTHERS = Section(
    "k-means against other libraries",
    "Ten iterations of k-means on float32 rows, using all rows in every iteration; our time includes the labels; "
    f"{SIZES} clusters.",
    ("size", "arrays"),
    ", from random rows if they accept no start",
)
DIAGONAL = Section(
    "Gaussian mixtures with diagonal covariances against scikit-learn",
    f"Fits of a fixed number of iterations, or one iteration of EM; {SIZES} components.",
    ("size", "dtype", "arrays", "what"),
    ", in the same dtype, from the same weights, means and variances",
)
FULL = Section(
    "Gaussian mixtures with full covariances against scikit-learn",
    "One iteration of EM (an eighth of the difference between ten and two iterations), or a fit of ten; "
    f"{SIZES} components.",
    ("size", "dtype", "what"),
    ", in the same dtype, from the same weights, means and covariances",
)
WIDE = Section(
    "Gaussian mixtures in many features",
    f"A start at random rows and one step of EM with full covariances, float64; {SIZES} components.",
    ("size",),
)
OTHERS = Section(
    "Gaussian mixtures on Torch and JAX against other libraries",
    f"Ten iterations of EM with full covariances, float32; {SIZES} components.",
    ("size", "arrays"),
    ", from the same means",
)
LIBRARIES = Section(
    "NumPy, Torch or JAX on the CPU",
    f"One fit of ten iterations on arrays of each, float64; {SIZES} components.",
    ("size", "covariances"),
    ours="emroute on NumPy",
)
SMALL = Section(
    "Small fits against scikit-learn",
    "The 178 wines of scikit-learn with 13 features, three components or clusters, fitted by each library with "
    "its defaults and a seed until it stops; the table gives the iterations of both.",
    ("fit", "iterations"),
    ", whose mixtures stop sooner (`tol=1e-3`, ours 1e-6)",
)
BATCH = Section(
    "Many problems in one call",
    "64 Gaussian mixtures of 500 rows, 4 features and 3 components each, fitted as one batch, for ten iterations or "
    "until each has converged.",
    ("arrays", "stop"),
    " in a loop",
    ours="one call",
)
COMPILING = Section(
    "Compilation on JAX",
    "Processor seconds in a new process without a compilation cache: a fit of 1,010 rows after one of 1,000, "
    "`select.mixtures` of iris with its defaults, and scikit-learn's `GridSearchCV` of wine, 16 fits.",
    ("what",),
    ", in the same process",
    ours="JAX",
)
ROUTING = Section(
    "EM routing of capsules against plain NumPy, Torch and JAX",
    "Three iterations of EM routing, float32, for 72 samples of 288 children and 32 parents with poses of 16 numbers; "
    "from their votes, or from poses and transforms, where computing the votes is timed too.",
    ("arrays", "from", "what"),
    ", which compute with whole tensors, JAX under `jit`, compiled Torch in `torch.compile`",
)
TRAINING = Section(
    "A training step of a capsule network against plain Torch",
    "Forward and backward of `MatrixCapsNet` with widths 32, 32, 32 and 32 for 8 images of 32 × 32.",
    ("arrays",),
    ", which stores all votes of a layer in one tensor",
)
MEMORY = Section(
    "Memory",
    "The peak of memory above that of the process before, each in its own process; the votes are (144, 288, 32, 16): "
    "samples, children, parents, numbers per pose.",
    ("what",),
    ours="the peak",
    unit="B",
    better="smaller",
    worse="larger",
)
SECTIONS = [
    KMEANS,
    KMEANS_OTHERS,
    DIAGONAL,
    FULL,
    WIDE,
    OTHERS,
    LIBRARIES,
    SMALL,
    BATCH,
    COMPILING,
    ROUTING,
    TRAINING,
    MEMORY,
]
