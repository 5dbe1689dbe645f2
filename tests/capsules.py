"""The published equations of routing in plain float64 NumPy, for one sample: what the tests compare with."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis):
    shares = np.exp(x - x.max(axis=axis, keepdims=True))
    return shares / shares.sum(axis=axis, keepdims=True)


def squash(s, constant=1.0):
    length = np.linalg.norm(s, axis=-1, keepdims=True)
    return s * length / (constant + length**2)


def paper_temperature(t):
    return 0.01 * (1 - 0.95 ** (t + 1))


def dynamic(votes, n_iter, bias=0.0, leaky=False):
    """Sabour, Frosst and Hinton (2017), procedure 1."""
    i, j, _ = votes.shape
    b = np.zeros((i, j))
    for iteration in range(n_iter):
        c = softmax(np.concatenate([b, np.zeros((i, 1))], axis=1), 1)[:, :j] if leaky else softmax(b, 1)
        s = np.einsum("ij,ijh->jh", c, votes) + bias
        v = squash(s)
        if iteration < n_iter - 1:
            b = b + np.einsum("ijh,jh->ij", votes, v)
    return v, np.linalg.norm(v, axis=-1), c


def kmeans(votes, n_iter, constant=0.5):
    """Su (2018): logits replaced."""
    b = np.zeros(votes.shape[:2])
    for iteration in range(n_iter):
        c = softmax(b, 1)
        s = np.einsum("ij,ijh->jh", c, votes)
        if iteration < n_iter - 1:
            b = np.einsum("ijh,jh->ij", votes, s / np.linalg.norm(s, axis=-1, keepdims=True))
    v = squash(s, constant)
    return v, np.linalg.norm(v, axis=-1), c


def em(votes, activations, beta_u, beta_a, n_iter, temperature=paper_temperature, epsilon=1e-6):
    """Hinton, Sabour and Frosst (2018), procedure 1, parent by parent."""
    i, j, _ = votes.shape
    r = np.full((i, j), 1 / j)
    for t in range(n_iter):
        mean, variance, a = np.zeros(votes.shape[1:]), np.zeros(votes.shape[1:]), np.zeros(j)
        for parent in range(j):
            weight = r[:, parent] * activations
            total = weight.sum()
            mean[parent] = weight @ votes[:, parent] / total
            variance[parent] = weight @ (votes[:, parent] - mean[parent]) ** 2 / total + epsilon
            cost = (beta_u[parent] + np.log(variance[parent]) / 2) * total
            a[parent] = sigmoid(temperature(t) * (beta_a[parent] - cost.sum()))
        used = r
        if t < n_iter - 1:
            log_density = -((votes - mean) ** 2 / (2 * variance) + np.log(2 * np.pi * variance) / 2).sum(axis=-1)
            r = softmax(np.log(a) + log_density, 1)
    return mean, a, used


def em_normalized(votes, activations, beta_v, beta_a, n_iter):
    """The tutorials' code, costs standardized over the types of parents, with sigma kept above 1e-4."""
    epsilon = 1e-9
    least, most = 1.0, min(n_iter, 3.0)
    r = np.ones(votes.shape[:2]) / votes.shape[1]
    for iteration in range(n_iter):
        inverse_temperature = np.linspace(least, most, n_iter)[iteration]
        rr = (r * activations[:, None])[:, :, None]
        rr_sum = rr.sum(axis=0, keepdims=True)
        mean = (rr * votes).sum(axis=0, keepdims=True) / rr_sum
        stdv = np.sqrt(np.maximum((rr * (votes - mean) ** 2).sum(axis=0, keepdims=True) / rr_sum, 1e-8))
        cost = ((beta_v[None, :, None] + np.log(stdv + epsilon)) * rr_sum).sum(axis=-1)[0]
        a = sigmoid(inverse_temperature * (beta_a + (cost.mean() - cost) / (cost.std() + epsilon)))
        used = r
        if iteration < n_iter - 1:
            p0 = -((votes - mean) ** 2 / (2 * stdv**2)).sum(axis=-1) - np.log(stdv + epsilon).sum(axis=-1)
            r = softmax(np.log(a + epsilon) + p0, 1)
    return mean[0], a, used


def ladder(step, poses, start, n_iter, activations=None, beta_v=0.0, beta_a=0.0, epsilon=1e-6):
    """Su's four steps from the EM of a mixture to EM routing; poses ``(I, H)``."""
    mean, variance, prior = start
    n = len(poses)
    weight = np.ones(n) if activations is None else activations
    for _ in range(n_iter):
        gap = poses[:, None, :] - mean
        density = np.prod(np.exp(-(gap**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance), axis=-1)
        r = prior * density
        r = r / r.sum(axis=1, keepdims=True)
        share = r * weight[:, None]
        total = share.sum(axis=0)
        share = share / total
        mean = share.T @ poses
        variance = np.einsum("ij,ijh->jh", share, (poses[:, None, :] - mean) ** 2) + epsilon
        if step == 1:
            prior = r.sum(axis=0) / n
        else:
            cost = (beta_v + np.log(np.sqrt(variance))).sum(axis=-1) * (total if step == 4 else 1)
            prior = sigmoid(beta_a - cost)
    return mean, prior, r


def conv(poses, activations, transforms, route_step, stride, padding, n_iter, over_parents=True):
    """Convolutional routing of one image by brute force: a dictionary of all pairs of a child and a parent.

    `route_step` gives poses, activations and logits of a position; see `em_step`.
    """
    h, w, i, p, _ = poses.shape
    k, j = transforms.shape[0], transforms.shape[3]
    rows, columns = ((size + 2 * padding - k) // stride + 1 for size in (h, w))
    seen = {}
    for y in range(rows):
        for x in range(columns):
            seen[y, x] = [
                (dy, dx, y * stride + dy - padding, x * stride + dx - padding)
                for dy in range(k)
                for dx in range(k)
                if 0 <= y * stride + dy - padding < h and 0 <= x * stride + dx - padding < w
            ]
    holders = {}
    for position, places in seen.items():
        for _, _, cy, cx in places:
            holders.setdefault((cy, cx), []).append(position)
    votes = {
        position: np.concatenate(
            [np.einsum("ipq,ijqr->ijpr", poses[cy, cx], transforms[dy, dx]) for dy, dx, cy, cx in places]
        ).reshape(-1, j, p * p)
        for position, places in seen.items()
    }
    given = {
        position: np.concatenate([activations[cy, cx] for _, _, cy, cx in places]) for position, places in seen.items()
    }
    logits = {
        position: np.repeat([-np.log(j * (len(holders[cy, cx]) if over_parents else 1)) for _, _, cy, cx in places], i)[
            :, None
        ]
        * np.ones(j)
        for position, places in seen.items()
    }
    assignments = {position: np.exp(value) for position, value in logits.items()}
    logits = {position: 0 * value for position, value in logits.items()}
    for t in range(n_iter):
        found = {}
        for position in seen:
            found[position] = route_step(t, votes[position], assignments[position], given[position], logits[position])
        logits = {position: result[2] for position, result in found.items()}
        used = assignments
        if t < n_iter - 1:
            assignments = {}
            for position, places in seen.items():
                rows_of = []
                for place, (_, _, cy, cx) in enumerate(places):
                    for child in range(i):
                        mine = logits[position][place * i + child]
                        others = [mine]
                        if over_parents:
                            others = [
                                logits[other][[q[2:] for q in seen[other]].index((cy, cx)) * i + child]
                                for other in holders[cy, cx]
                            ]
                        everyone = np.concatenate(others)
                        rows_of.append(np.exp(mine - everyone.max()) / np.exp(everyone - everyone.max()).sum())
                assignments[position] = np.array(rows_of)
    out_poses, out_active = np.zeros((rows, columns, j, p, p)), np.zeros((rows, columns, j))
    out_assigned = np.zeros((rows, columns, k, k, i, j))
    for (y, x), (mean, a, _) in found.items():
        out_poses[y, x], out_active[y, x] = mean.reshape(j, p, p), a
        for place, (dy, dx, _, _) in enumerate(seen[y, x]):
            out_assigned[y, x, dy, dx] = used[y, x][place * i : (place + 1) * i]
    return out_poses, out_active, out_assigned


def em_step(beta_u, beta_a, epsilon=1e-6, temperature=paper_temperature):
    """One position's M-step and the logits of its E-step."""

    def step(t, votes, assignments, given, logits):
        weight = assignments * given[:, None]
        total = weight.sum(axis=0)
        mean = np.einsum("ij,ijh->jh", weight, votes) / total[:, None]
        variance = np.einsum("ij,ijh->jh", weight, (votes - mean) ** 2) / total[:, None] + epsilon
        cost = ((beta_u[:, None] + np.log(variance) / 2) * total[:, None]).sum(axis=-1)
        a = sigmoid(temperature(t) * (beta_a - cost))
        density = -((votes - mean) ** 2 / (2 * variance) + np.log(2 * np.pi * variance) / 2).sum(axis=-1)
        return mean, a, np.log(a) + density

    return step


def dynamic_step():
    def step(t, votes, assignments, given, logits):
        v = squash(np.einsum("ij,ijh->jh", assignments, votes))
        return v, np.linalg.norm(v, axis=-1), logits + np.einsum("ijh,jh->ij", votes, v)

    return step
