"""The way back through EM routing of votes, `agreement`, a sample a program, one pass over the votes an iteration.

The equations are those of `emroute_backends.kernels.gradients`. A pass goes back through the moments of an iteration,
then through the softmax before it, and adds up what the parents of the iteration before that get from its logits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from emroute_backends.kernels.cuda.agreement import light_of, votes_of

__all__ = ["retrace"]


@triton.jit
def weigh_back(
    square, total, logit, u, settings, temperature, weight, of_active, straight, bent, j, h, n_parents, entries,
    NORMALIZED: tl.constexpr,
):  # fmt: skip
    """Gradients of moments, of sums of R a and of costs; `weight` is the sum of those of logits, as are the next two.

    `straight` and `bent` are sums of gradients of logits times differences to the means, and times squares of these.
    """
    real, inside = j < n_parents, (j < n_parents)[:, None] & (h < entries)[None, :]
    least = tl.load(settings + 2)
    variance = tl.where(inside, tl.maximum(square, least) if NORMALIZED else square + tl.load(settings), 1)
    deviation = tl.sqrt(variance)
    width = tl.log(deviation + 1e-9) if NORMALIZED else tl.log(variance) / 2
    width = tl.where(inside, width, 0)
    rest = tl.exp(-tl.abs(logit))
    active = tl.where(logit > 0, 1, rest) / (1 + rest)
    inactive = tl.where(logit > 0, rest, 1) / (1 + rest)
    if NORMALIZED:
        slope = (of_active + weight / (active + 1e-9)) * active * inactive
    else:
        slope = (of_active * active + weight) * inactive
    of_beta_a = temperature * tl.where(real, slope, 0)
    of_cost = -of_beta_a
    if NORMALIZED:
        costs = tl.where(inside, (u[:, None] + width) * total[:, None], 0)
        size, cost = tl.max(tl.sum(tl.abs(costs), axis=1), axis=0), tl.sum(costs, axis=1)
        cost = tl.where(real, cost - tl.sum(tl.where(j == 0, cost, 0), axis=0), 0)
        cost = tl.where(real, cost - tl.sum(cost, axis=0) / n_parents, 0)
        away = tl.sqrt(tl.sum(cost * cost, axis=0) / n_parents)
        tied = away <= tl.load(settings + 1) * size
        whole = tl.where(tied, tl.maximum(size, 1), away + 1e-9)
        along = tl.sum(of_cost * cost / (whole * whole), axis=0) / tl.where(tied, 1, n_parents * away)
        of_cost = tl.where(real, of_cost / whole - tl.where(tied, 0, along) * cost, 0)
        of_cost = tl.where(real, of_cost - tl.sum(of_cost, axis=0) / n_parents, 0)
    of_beta_u = of_cost * entries * total
    of_total = of_cost * (u * entries + tl.sum(width, axis=1))
    of_width = of_cost * total - weight
    precision = 1 / variance
    steep = 0.5 / (deviation * (deviation + 1e-9)) if NORMALIZED else 0.5 * precision
    of_square = of_width[:, None] * steep + precision * (precision * bent) / 2
    if NORMALIZED:
        of_square = tl.where(square > least, of_square, 0)
    of_square, precision = tl.where(inside, of_square, 0), tl.where(inside, precision, 0)
    return of_square, straight * precision, precision, of_total, of_beta_u, of_beta_a


@triton.jit
def retrace(
    x, activations, beta_u, settings, temperatures, means, squares, parents, log_assigned,
    of_poses, of_active, of_assigned, of_logits, of_x, of_activations, of_betas,
    n, n_parents, entries, n_iter, BI: tl.constexpr, BJ: tl.constexpr, BH: tl.constexpr,
    EXPLAINED: tl.constexpr, NORMALIZED: tl.constexpr,
):  # fmt: skip
    """Gradients of votes, activations and costs; `of_logits` takes those of the logarithms of assignments."""
    b = tl.program_id(0).to(tl.int64)
    i, j, h = tl.arange(0, BI), tl.arange(0, BJ), tl.arange(0, BH)
    dtype: tl.constexpr = x.dtype.element_ty
    real, inside = j < n_parents, (j < n_parents)[:, None] & (h < entries)[None, :]
    u = tl.load(beta_u + b * n_parents + j, real, other=0)
    least = tl.load(settings + 4)
    brightest = tl.zeros((BI,), dtype)
    for at in range(0, n, BI):
        brightest = tl.maximum(brightest, tl.load(activations + b * n + at + i, at + i < n, other=0))
    bright = tl.max(brightest, axis=0)
    bright = tl.where(bright > least, bright, 1)
    weight, straight, bent = tl.zeros((BJ,), dtype), tl.zeros((BJ, BH), dtype), tl.zeros((BJ, BH), dtype)
    mean = tl.load(means + ((b * n_iter + n_iter - 1) * n_parents + j)[:, None] * entries + h[None, :], inside, other=0)
    if EXPLAINED:
        for at in range(0, n, BI):
            child = at + i
            there, base = child < n, b * n + child
            gap = votes_of(x, x, x, base, child, there, j, h, n, n_parents, entries, 0, False) - mean[None]
            slope = tl.load(of_logits + base[:, None] * n_parents + j[None, :], there[:, None] & real[None, :], other=0)
            weight += tl.sum(slope, axis=0)
            straight += tl.sum(slope[:, :, None] * gap, axis=0)
            bent += tl.sum(slope[:, :, None] * gap * gap, axis=0)
    of_u, of_a = tl.zeros((BJ,), dtype), tl.zeros((BJ,), dtype)
    of_pose = tl.load(of_poses + (b * n_parents + j)[:, None] * entries + h[None, :], inside, other=0)
    outer = tl.load(of_active + b * n_parents + j, real, other=0)
    for back in range(n_iter):
        t = n_iter - 1 - back
        slot = (b * n_iter + t) * n_parents
        square = tl.load(squares + (slot + j)[:, None] * entries + h[None, :], inside, other=0)
        own = parents + 3 * slot + j
        top, some = tl.load(own, real, other=0), tl.load(own + n_parents, real, other=0)
        total = tl.exp(top + tl.log(bright)) * some
        inverse = tl.where(some > least, 1 / tl.where(some > least, some, 1), 0)
        of_square, of_mean, precision, of_total, of_beta_u, of_beta_a = weigh_back(
            square, total, tl.load(own + 2 * n_parents, real, other=0), u, settings, tl.load(temperatures + t),
            weight, outer, straight, bent, j, h, n_parents, entries, NORMALIZED,
        )  # fmt: skip
        of_mean += of_pose
        of_pose, outer = tl.zeros((BJ, BH), dtype), tl.zeros((BJ,), dtype)  # only the last iteration has results
        of_u += of_beta_u
        of_a += of_beta_a
        fixed = tl.sum(of_square * square, axis=1)
        before = slot - tl.minimum(t, 1) * n_parents
        earlier = tl.load(means + (before + j)[:, None] * entries + h[None, :], inside, other=0)
        weight, straight, bent = tl.zeros((BJ,), dtype), tl.zeros((BJ, BH), dtype), tl.zeros((BJ, BH), dtype)
        for at in range(0, n, BI):
            child = at + i
            there, base = child < n, b * n + child
            pair = there[:, None] & real[None, :]
            votes = votes_of(x, x, x, base, child, there, j, h, n, n_parents, entries, 0, False)
            gap = votes - mean[None]
            of_pair = base[:, None] * n_parents + j[None, :]
            chosen = log_assigned + ((b * n_iter + t) * n + child)[:, None] * n_parents + j[None, :]
            chosen = tl.load(chosen, pair, other=float("-inf"))
            light = light_of(activations, base, there, bright, least)
            # also for a child that is not there: its activation has a gradient
            relative = tl.exp(tl.minimum(chosen - top[None, :], -tl.log(least)))
            share, pull = tl.exp(chosen), relative * light[:, None] * inverse[None, :]
            slope = tl.load(of_logits + of_pair, pair, other=0)
            part = tl.sum(gap * (of_square[None] * gap + of_mean[None]), axis=2) - fixed[None, :]
            of_votes = pull[:, :, None] * (2 * of_square[None] * gap + of_mean[None])
            of_votes -= slope[:, :, None] * precision[None] * gap
            place = of_pair[:, :, None] * entries + h[None, None, :]
            held = pair[:, :, None] & (h < entries)[None, None, :]
            if back > 0:
                of_votes += tl.load(of_x + place, held, other=0)
            near, far = relative * part * inverse[None, :], share * of_total[None, :]
            of_light = tl.load(of_activations + base, there, other=0) + tl.sum(near / bright + far, axis=1)
            tl.debug_barrier()  # of small tiles several threads hold an entry: all read before one of them writes
            tl.store(of_x + place, of_votes, held)
            tl.store(of_activations + base, of_light, there)
            slope = light[:, None] * (near + bright * far)
            if back == 0:
                slope += share * tl.load(of_assigned + of_pair, pair, other=0)
            if t > 0:
                slope -= share * tl.sum(slope, axis=1)[:, None]
                gap = votes - earlier[None]
                weight += tl.sum(slope, axis=0)
                straight += tl.sum(slope[:, :, None] * gap, axis=0)
                bent += tl.sum(slope[:, :, None] * gap * gap, axis=0)
            tl.store(of_logits + of_pair, slope, pair)
        mean = earlier
        tl.debug_barrier()  # the next pass reads what other threads have written
    tl.store(of_betas + b * 2 * n_parents + j, of_u, real)
    tl.store(of_betas + (b * 2 + 1) * n_parents + j, of_a, real)
