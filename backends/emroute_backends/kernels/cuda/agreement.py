"""EM routing: what `emroute.capsule.gaussians` does, a sample or a window a program.

An iteration passes over the votes once: it asks the parents of the last iteration how well they explain them, and adds
up differences to the means of these, and their squares. Where a mean then moves by more than four deviations, squares
about the old one lose digits, and a second pass takes them about the new one. Samples at work together fill more than
the caches, so passes over memory are what routing costs. In registers are some children's votes for all parents at
once, because the softmax is over these.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["route"]


@triton.jit
def rows_of(index, b, child, n, per_place, WINDOWS: tl.constexpr):
    """Rows of children of a sample, or, of a window, at the places that are in it; for any child."""
    rows = b * n + child
    if WINDOWS:
        place = tl.load(index + b * (n // per_place) + child // per_place, child < n, other=0)
        rows = place * per_place + child % per_place
    return rows


@triton.jit
def light_of(activations, base, there, bright, least):
    """Activations over the brightest; what is next to nothing is nothing."""
    light = tl.load(activations + base, there, other=0) / bright
    return tl.where(light > least, light, 0)


@triton.jit
def votes_of(
    x, transforms, shift, base, child, there, j, h, n, n_parents, entries, P: tl.constexpr, MOVED: tl.constexpr
):  # fmt: skip
    """Votes ``(BI, J, H)`` of some children: rows `base` of votes, or, of P x P poses, cast by their transforms."""
    inside = there[:, None, None] & (j < n_parents)[None, :, None] & (h < entries)[None, None, :]
    if P == 0:
        at = (base[:, None] * n_parents + j[None, :])[:, :, None] * entries + h[None, None, :]
        return tl.load(x + at, inside, other=0)
    votes = tl.zeros((there.shape[0], j.shape[0], h.shape[0]), x.dtype.element_ty)
    row, column = h // P, h % P
    pose = x + base[:, None, None] * P * P + row[None, None, :] * P
    matrix = transforms + (child[:, None] * n_parents + j[None, :])[:, :, None] * P * P + column[None, None, :]
    for r in tl.static_range(P):
        part = tl.load(pose + r, there[:, None, None] & (h < entries)[None, None, :], other=0)
        votes += part * tl.load(matrix + r * P, inside, other=0)
    if MOVED:
        moved = tl.load(shift + h[None, :] * n + child[:, None], there[:, None] & (h < entries)[None, :], other=0)
        votes += moved[:, None, :]
    return votes


@triton.jit
def weigh(square, total, beta_u, beta_a, settings, temperature, j, h, n_parents, entries, NORMALIZED: tl.constexpr):
    """What log-densities are made of, one over variances and offsets; log-activations, and their logits."""
    real, inside = j < n_parents, (j < n_parents)[:, None] & (h < entries)[None, :]
    rounding, least = tl.load(settings + 1), tl.load(settings + 2)
    if NORMALIZED:
        variance = tl.maximum(square, least)
        width = tl.where(inside, tl.log(tl.sqrt(variance) + 1e-9), 0)
    else:
        variance = square + tl.load(settings)
        width = tl.where(inside, tl.log(variance) / 2, 0)
    costs = tl.where(inside, (beta_u[:, None] + width) * total[:, None], 0)
    cost = tl.sum(costs, axis=1)
    if NORMALIZED:
        size = tl.max(tl.sum(tl.abs(costs), axis=1), axis=0)
        cost = tl.where(real, cost - tl.sum(tl.where(j == 0, cost, 0), axis=0), 0)  # equal costs stay exactly equal
        cost = tl.where(real, cost - tl.sum(cost, axis=0) / n_parents, 0)
        deviation = tl.sqrt(tl.sum(cost * cost, axis=0) / n_parents)
        cost /= tl.where(deviation <= rounding * size, tl.maximum(size, 1), deviation + 1e-9)
    logit = temperature * (beta_a - cost)
    log_active = tl.minimum(logit, 0) - tl.log(1 + tl.exp(-tl.abs(logit)))
    offset = -tl.sum(width, axis=1)
    if NORMALIZED:
        offset += tl.log(tl.exp(log_active) + 1e-9)
    else:
        offset += log_active - entries * tl.load(settings + 3)
    return tl.where(inside, 1 / variance, 0), tl.where(real, offset, float("-inf")), log_active, logit


@triton.jit
def explain(gap, precision, offset):
    """Log-activations and log-densities of votes, from differences to the means; and their logsumexp over parents."""
    logits = offset[None, :] - tl.sum(gap * gap * precision[None], axis=2) / 2
    top = tl.max(logits, axis=1)
    return logits, top + tl.log(tl.sum(tl.exp(logits - top[:, None]), axis=1))


@triton.jit
def route(
    x, transforms, shift, index, activations, beta_u, beta_a, first, norm, settings, temperatures,
    poses, active, log_assigned, logits, norms, means, squares_of, parents,
    n, per_place, n_parents, entries, n_iter, of_sample, of_parent, of_child,
    BI: tl.constexpr, BJ: tl.constexpr, BH: tl.constexpr, P: tl.constexpr, MOVED: tl.constexpr,
    WINDOWS: tl.constexpr, EXPLAIN: tl.constexpr, NORMALIZED: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Route the children of a sample, or of a window, to their parents."""
    b = tl.program_id(0).to(tl.int64)
    i, j, h = tl.arange(0, BI), tl.arange(0, BJ), tl.arange(0, BH)
    dtype: tl.constexpr = x.dtype.element_ty
    inside = (j < n_parents)[:, None] & (h < entries)[None, :]
    u = tl.load(beta_u + b * n_parents + j, j < n_parents, other=0)
    a = tl.load(beta_a + b * n_parents + j, j < n_parents, other=0)
    least = tl.load(settings + 4)
    if KEEP:
        log_assigned += b * (n_iter - 1) * n * n_parents
    brightest = tl.zeros((BI,), dtype)
    for at in range(0, n, BI):
        child = at + i
        base = rows_of(index, b, child, n, per_place, WINDOWS)
        brightest = tl.maximum(brightest, tl.load(activations + base, child < n, other=0))
    bright = tl.max(brightest, axis=0)
    bright = tl.where(bright > least, bright, 1)
    # parents that explain nothing: all assignments are equal
    mean, precision = tl.zeros((BJ, BH), dtype), tl.zeros((BJ, BH), dtype)
    offset = tl.where(j < n_parents, tl.zeros((BJ,), dtype), float("-inf"))
    log_active = tl.zeros((BJ,), dtype)
    for t in range(n_iter):
        top = tl.full((BJ,), float("-inf"), dtype)
        some, sums, squares = tl.zeros((BJ,), dtype), tl.zeros((BJ, BH), dtype), tl.zeros((BJ, BH), dtype)
        for at in range(0, n, BI):
            child = at + i
            there = child < n
            base = rows_of(index, b, child, n, per_place, WINDOWS)
            votes = votes_of(x, transforms, shift, base, child, there, j, h, n, n_parents, entries, P, MOVED)
            pair, gap = there[:, None] & (j < n_parents)[None, :], votes - mean[None]
            if WINDOWS:
                given = first + b * of_sample + j[None, :] * of_parent + child[:, None] * of_child
                before = tl.load(norm + b * n + child, there, other=0)
                share = tl.load(given, pair, other=float("-inf")) - before[:, None]
            else:
                found, total = explain(gap, precision, offset)
                share = found - total[:, None]
            tl.store(log_assigned + (b * n + child)[:, None] * n_parents + j[None, :], share, pair)
            light = light_of(activations, base, there, bright, least)
            seen = tl.where(pair & (light > 0)[:, None], share, float("-inf"))
            faint = tl.log(tl.where(light > 0, light, 1))
            higher = tl.maximum(top, tl.max(seen + faint[:, None], axis=0))
            finite = tl.where(higher > float("-inf"), higher, 0)
            scale = tl.exp(top - finite)
            weight = tl.exp(seen - finite[None, :]) * light[:, None]
            some = some * scale + tl.sum(weight, axis=0)
            sums = sums * scale[:, None] + tl.sum(weight[:, :, None] * gap, axis=0)
            squares = squares * scale[:, None] + tl.sum(weight[:, :, None] * gap * gap, axis=0)
            top = higher
        held = some > least
        top = tl.where(top > float("-inf"), top, 0)
        inverse = tl.where(held, 1 / tl.where(held, some, 1), 0)
        step = sums * inverse[:, None]
        square = squares * inverse[:, None] - step * step
        # of a parent without weight the mean is 0, not the last one
        mean = tl.where(held[:, None], mean + step, 0)
        if tl.max(tl.where(inside & (step * step > 16 * square), 1, 0)) > 0:
            squares = tl.zeros((BJ, BH), dtype)
            tl.debug_barrier()  # shares were written by other threads than those that read them
            for at in range(0, n, BI):
                child = at + i
                there = child < n
                base = rows_of(index, b, child, n, per_place, WINDOWS)
                votes = votes_of(x, transforms, shift, base, child, there, j, h, n, n_parents, entries, P, MOVED)
                pair = there[:, None] & (j < n_parents)[None, :]
                share = tl.load(log_assigned + (b * n + child)[:, None] * n_parents + j[None, :], pair, other=0)
                light = light_of(activations, base, there, bright, least)
                seen = tl.where(pair & (light > 0)[:, None], share, float("-inf"))
                gap = votes - mean[None]
                squares += tl.sum((tl.exp(seen - top[None, :]) * light[:, None])[:, :, None] * gap * gap, axis=0)
            square = squares * inverse[:, None]
            tl.debug_barrier()
        if KEEP:
            own = ((b * n_iter + t) * n_parents + j)[:, None] * entries + h[None, :]
            tl.store(means + own, mean, inside)
            tl.store(squares_of + own, square, inside)
            log_assigned += n * n_parents
        total = tl.exp(top + tl.log(bright)) * some
        temperature = tl.load(temperatures + t)
        precision, offset, log_active, logit = weigh(
            square, total, u, a, settings, temperature, j, h, n_parents, entries, NORMALIZED
        )
        if KEEP:
            of_parents = parents + (b * n_iter + t) * 3 * n_parents + j
            tl.store(of_parents, top, j < n_parents)
            tl.store(of_parents + n_parents, some, j < n_parents)
            tl.store(of_parents + 2 * n_parents, logit, j < n_parents)
    tl.store(poses + (b * n_parents + j)[:, None] * entries + h[None, :], mean, inside)
    tl.store(active + b * n_parents + j, tl.exp(log_active), j < n_parents)
    if EXPLAIN:
        for at in range(0, n, BI):
            child = at + i
            there = child < n
            base = rows_of(index, b, child, n, per_place, WINDOWS)
            votes = votes_of(x, transforms, shift, base, child, there, j, h, n, n_parents, entries, P, MOVED)
            found, total = explain(votes - mean[None], precision, offset)
            pair = there[:, None] & (j < n_parents)[None, :]
            tl.store(logits + (b * n + child)[:, None] * n_parents + j[None, :], found, pair)
            tl.store(norms + b * n + child, total, there)
