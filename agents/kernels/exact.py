"""The loop of the exact law of a field; `agents.inference.exact` says what it computes.

A tile of lanes goes through all of it at once, so that what lies between stays in the cache: a lane is one
atom of one token and prompt. What is needed at each node stands in rows of lanes, one node after the other.
"""

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.kernels.compiler import compiled
from agents.kernels.elementary import LANES, carray, cube_roots, exponentials, logarithms, stack

Array = NDArray[Any]
NODES = 5  # of the quadrature over g
LEAST_ROOT = 0.05  # of the cube root of g, which the approximation would let fall below zero
_WIDE = NODES * LANES


@compiled("v i2 b0 i0 i2 f2 f2 f2 f2 f3 f2 f2 f2 f1 f1 f0 f0 f0 f0 f2 I3 F4 F4 F4 F4 F4 F4 F3 F3 I3 F3 F3")
def hear(
    loops: Array, grouped: bool, t: int, code: Array, value: Array, effective: Array, noise: Array,
    around: Array, control: Array, atoms: Array, directions: Array, table: Array, nodes: Array, logs: Array,
    label_variance: float, resolution: float, repeats: float, alone_up_to: float, by_atom: Array,
    codes: Array, fields: Array, controls: Array, scales: Array, innovations: Array, evidences: Array,
    rows: Array, log_weights: Array, alone: Array, times: Array, weights: Array, mean: Array,
) -> None:  # fmt: skip
    """Update a belief on one field, and read it.

    Args:
        loops: addresses of numpy's elementary functions.
        grouped: whether answers to one code are taken together.
        t: number of answers heard before.
        code, value, effective, noise: the field, and the channel's variance in one message [n, B].
        around: sigma^2 + Delta [n, B].
        control: v [n, d, B].
        atoms, directions, table: [d, M], [C, d], and u.a [C, M].
        nodes, logs: of the quadrature, and the logarithms of their weights [Q].
        label_variance, resolution, repeats, alone_up_to: constants of the law.
        by_atom: the atoms again [M, lanes].
        codes: of all answers [T, n, B].
        fields: of all answers the number of tokens, u.v, the value less that, the channel's variance, and
            sigma^2 + Delta [T, n, 5, B].
        controls: of all answers [T, n, d, B].
        scales, innovations, evidences: of answers that are not the first to their code, which the field
            alone tells [T, n, B, Q M].
        rows: of each pair t > s of answers to a code, at t (t - 1) / 2 + s [pairs, n, B, Q M].
        log_weights, alone, times: of the belief before, which become those after.
        weights, mean: of the belief after.
    """
    prompts, dim, many = code.shape[1], atoms.shape[0], atoms.shape[1]
    along, rest = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    number, channel = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    excess, width = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    middle, spread = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    constant, start = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    top, total = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    top_before, total_before = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    pivot, miss = carray(stack(_WIDE), (_WIDE,)), carray(stack(_WIDE), (_WIDE,))
    common, entry = carray(stack(LANES), (LANES,)), carray(stack(_WIDE), (_WIDE,))
    before, half = carray(stack(_WIDE), (_WIDE,)), carray(stack(_WIDE), (_WIDE,))
    evidence, share_1 = carray(stack(_WIDE), (_WIDE,)), carray(stack(_WIDE), (_WIDE,))
    half_1 = carray(stack(_WIDE), (_WIDE,))
    scale_1, missed_1 = carray(stack(_WIDE), (_WIDE,)), carray(stack(_WIDE), (_WIDE,))
    evidence_1, before_1 = carray(stack(_WIDE), (_WIDE,)), carray(stack(_WIDE), (_WIDE,))
    along_1, rest_1 = carray(stack(LANES), (LANES,)), carray(stack(LANES), (LANES,))
    same, terms, lanes = np.empty(t, np.int64), np.empty(max(many, LANES)), np.empty(by_atom.shape[1])
    chunk, repeated = min(many, LANES), np.empty(LANES, np.bool_)
    tile, again, base = LANES // chunk, grouped and t > 0, t * (t - 1) // 2
    for first in range(0, code.size, tile):
        size = min(tile, code.size - first)
        for m0 in range(0, many, chunk):
            now = min(chunk, many - m0)
            count, wide = size * now, NODES * now
            # All nodes of a token stand in one run, where no atoms are left to another turn.
            runs, length = (1, wide) if now == many else (NODES, now)

            for p in range(size):  # what the field says under each atom: u.q, and the variance of a message
                i, b, o = (first + p) // prompts, (first + p) % prompts, p * now
                c, v = code[i, b], control[i, 0, b]
                read = directions[c, 0] * v
                for m in range(now):
                    q = atoms[0, m0 + m] - v
                    rest[o + m] = q * q
                for k in range(1, dim):
                    v = control[i, k, b]
                    read += directions[c, k] * v
                    for m in range(now):
                        q = atoms[k, m0 + m] - v
                        rest[o + m] += q * q
                tokens = effective[i, b] if effective[i, b] > 0 else 1.0
                root, less = sqrt(2.0 / (9.0 * tokens)), value[i, b] - read
                apart, added = noise[i, b], around[i, b]
                for m in range(now):
                    a = table[c, m0 + m] - read
                    along[o + m] = a
                    rest[o + m] = max(rest[o + m] - a * a, 0.0) + added
                    number[o + m], channel[o + m], excess[o + m], width[o + m] = tokens, apart, less, root
                if grouped and m0 == 0:
                    codes[t, i, b] = c
                    fields[t, i, 0, b], fields[t, i, 1, b], fields[t, i, 2, b] = tokens, read, less
                    fields[t, i, 3, b], fields[t, i, 4, b] = apart, added
                    for k in range(dim):
                        controls[t, i, k, b] = control[i, k, b]

            for j in range(count):  # the centre of the nodes, and how far they lie apart
                slope = 3.0 * width[j] * along[j]
                variance = (rest[j] + channel[j]) / number[j]
                shift = slope * (excess[j] - along[j]) / (variance + slope * slope)
                middle[j] = max(1.0 + 3.0 * width[j] * shift, LEAST_ROOT**3)
            cube_roots(loops, middle, count)
            for j in range(count):
                narrow, r = 2.0 / (9.0 * number[j]), middle[j]
                there = r * r
                slope = 3.0 * width[j] * along[j] * there
                variance = (there * r * rest[j] + channel[j]) / number[j]
                middle[j] = (r - 1.0 + narrow) / width[j]
                spread[j] = sqrt(variance / (variance + slope * slope))
                constant[j] = spread[j]
                start[j] = 1.0 - narrow
            logarithms(loops, constant, count)

            for k in range(NODES):  # each node's law of the field: `evidence` takes its scale
                node, o = nodes[k], k * count
                weight = logs[k] + 0.5 * node * node
                for j in range(count):
                    z = middle[j] + spread[j] * node
                    root = abs(start[j] + z * width[j])
                    g = root * root * root
                    variance = g * rest[j]
                    least = channel[j]
                    if again:
                        least = max(least, resolution * variance)
                    scale = 1.0 / sqrt(max((variance + channel[j]) / number[j], least / number[j]))
                    innovation = (excess[j] - g * along[j]) * scale
                    evidence[o + j] = scale
                    half[o + j] = 0.5 * innovation * innovation
                    before[o + j] = weight + constant[j] - 0.5 * z * z
            for p in range(size if again else 0):  # the same, given the earlier answers to the code
                i, b, l0 = (first + p) // prompts, (first + p) % prompts, p * now
                c, earlier = code[i, b], 0
                for s in range(t):
                    if codes[s, i, b] == c:
                        same[earlier] = s
                        earlier += 1
                repeated[p] = earlier > 0
                if not earlier:
                    continue
                # The first answer, as it was heard.
                s = same[0]
                tokens, read, less = fields[s, i, 0, b], fields[s, i, 1, b], fields[s, i, 2, b]
                apart, added = fields[s, i, 3, b], fields[s, i, 4, b]
                v = controls[s, i, 0, b]
                for m in range(now):
                    q = atoms[0, m0 + m] - v
                    rest_1[m] = q * q
                for k in range(1, dim):
                    v = controls[s, i, k, b]
                    for m in range(now):
                        q = atoms[k, m0 + m] - v
                        rest_1[m] += q * q
                narrow = 2.0 / (9.0 * tokens)
                root = sqrt(narrow)
                for m in range(now):
                    a = table[c, m0 + m] - read
                    along_1[m] = a
                    rest_1[m] = max(rest_1[m] - a * a, 0.0) + added
                    slope = 3.0 * root * a
                    variance = (rest_1[m] + apart) / tokens
                    shift = slope * (less - a) / (variance + slope * slope)
                    common[m] = max(1.0 + 3.0 * root * shift, LEAST_ROOT**3)
                cube_roots(loops, common, now)
                for m in range(now):
                    r = common[m]
                    there = r * r
                    slope = 3.0 * root * along_1[m] * there
                    variance = (there * r * rest_1[m] + apart) / tokens
                    common[m] = (r - 1.0 + narrow) / root
                    entry[m] = sqrt(variance / (variance + slope * slope))
                    pivot[m] = entry[m]
                logarithms(loops, pivot, now)
                for k in range(NODES):
                    node, w0 = nodes[k], k * now
                    weight = logs[k] + 0.5 * node * node
                    for m in range(now):
                        z = common[m] + entry[m] * node
                        r = abs((1.0 - narrow) + z * root)
                        g = r * r * r
                        variance = g * rest_1[m]
                        least = max(apart, resolution * variance) if s else apart
                        scale_1[w0 + m] = 1.0 / sqrt(max((variance + apart) / tokens, least / tokens))
                        missed_1[w0 + m] = (less - g * along_1[m]) * scale_1[w0 + m]
                        evidence_1[w0 + m] = scale_1[w0 + m]
                        half_1[w0 + m] = 0.5 * missed_1[w0 + m] * missed_1[w0 + m]
                        before_1[w0 + m] = weight + pivot[m] - 0.5 * z * z
                        share_1[w0 + m] = g
                logarithms(loops, evidence_1, wide)
                for j in range(wide):
                    before_1[j] = before_1[j] + evidence_1[j] - half_1[j]
                if earlier > 1:
                    last = same[earlier - 1]
                    for r in range(runs):
                        w0, h0 = r * now, r * many + m0
                        for j in range(length):
                            before_1[w0 + j] = evidences[last, i, b, h0 + j]
                # Row by row of the Cholesky factor, all nodes at a time.
                for k in range(NODES):
                    w0 = k * now
                    for m in range(now):
                        g = share_1[w0 + m]
                        pivot[w0 + m] = (g * rest[l0 + m] + channel[l0 + m]) / number[l0 + m]
                        miss[w0 + m] = excess[l0 + m] - g * along[l0 + m]
                for e in range(earlier):
                    s = same[e]
                    v, w = control[i, 0, b], controls[s, i, 0, b]
                    for m in range(now):
                        common[m] = (atoms[0, m0 + m] - v) * (atoms[0, m0 + m] - w)
                    for k in range(1, dim):
                        v, w = control[i, k, b], controls[s, i, k, b]
                        for m in range(now):
                            common[m] += (atoms[k, m0 + m] - v) * (atoms[k, m0 + m] - w)
                    root, read = sqrt(number[l0] * fields[s, i, 0, b]), fields[s, i, 1, b]
                    for m in range(now):
                        shared = common[m] - along[l0 + m] * (table[c, m0 + m] - read) + label_variance
                        common[m] = shared / root
                    for k in range(NODES):
                        for m in range(now):
                            entry[k * now + m] = share_1[k * now + m] * common[m]
                    for f in range(e):
                        mine, theirs = base + same[f], s * (s - 1) // 2 + same[f]
                        for r in range(runs):
                            w0, h0 = r * now, r * many + m0
                            for j in range(length):
                                entry[w0 + j] -= rows[mine, i, b, h0 + j] * rows[theirs, i, b, h0 + j]
                    if e:
                        for r in range(runs):
                            w0, h0 = r * now, r * many + m0
                            for j in range(length):
                                entry[w0 + j] *= scales[s, i, b, h0 + j]
                                miss[w0 + j] -= entry[w0 + j] * innovations[s, i, b, h0 + j]
                    else:
                        for j in range(wide):
                            entry[j] *= scale_1[j]
                            miss[j] -= entry[j] * missed_1[j]
                    for j in range(wide):
                        pivot[j] -= entry[j] * entry[j]
                    for r in range(runs):
                        w0, h0 = r * now, r * many + m0
                        for j in range(length):
                            rows[base + s, i, b, h0 + j] = entry[w0 + j]
                for k in range(NODES):
                    o, w0 = k * count + l0, k * now
                    for m in range(now):
                        least = max(channel[l0 + m], resolution * (share_1[w0 + m] * rest[l0 + m]))
                        scale = 1.0 / sqrt(max(pivot[w0 + m], least / number[l0 + m]))
                        innovation = miss[w0 + m] * scale
                        entry[w0 + m] = scale
                        miss[w0 + m] = innovation
                        evidence[o + m] = scale
                        half[o + m] = 0.5 * innovation * innovation
                        before[o + m] = before_1[w0 + m]
                for r in range(runs):  # what later answers to the code will need
                    w0, h0 = r * now, r * many + m0
                    for j in range(length):
                        scales[t, i, b, h0 + j] = entry[w0 + j]
                    for j in range(length):
                        innovations[t, i, b, h0 + j] = miss[w0 + j]

            logarithms(loops, evidence, NODES * count)
            for j in range(NODES * count):
                evidence[j] = before[j] + evidence[j] - half[j]
            if again:  # what the nodes weigh before the field
                for j in range(count):
                    top_before[j] = before[j]
                for k in range(1, NODES):
                    for j in range(count):
                        top_before[j] = max(top_before[j], before[k * count + j])
                for k in range(NODES):
                    for j in range(count):
                        before[k * count + j] -= top_before[j]
                exponentials(loops, before, NODES * count)
                for j in range(count):
                    total_before[j] = before[j]
                for k in range(1, NODES):
                    for j in range(count):
                        total_before[j] += before[k * count + j]
                logarithms(loops, total_before, count)
            for p in range(size if again else 0):
                i, b, l0 = (first + p) // prompts, (first + p) % prompts, p * now
                if not repeated[p]:
                    continue
                for k in range(NODES):
                    for m in range(now):
                        evidences[t, i, b, k * many + m0 + m] = evidence[k * count + l0 + m]
            for j in range(count):  # and with it
                top[j] = evidence[j]
            for k in range(1, NODES):
                for j in range(count):
                    top[j] = max(top[j], evidence[k * count + j])
            for k in range(NODES):
                for j in range(count):
                    evidence[k * count + j] -= top[j]
            exponentials(loops, evidence, NODES * count)
            for j in range(count):
                total[j] = evidence[j]
            for k in range(1, NODES):
                for j in range(count):
                    total[j] += evidence[k * count + j]
            logarithms(loops, total, count)
            for j in range(count):
                total[j] = top[j] + total[j]
            if again:
                for j in range(count):
                    total[j] -= top_before[j] + total_before[j]
            for p in range(size):
                i, b, o = (first + p) // prompts, (first + p) % prompts, p * now
                if effective[i, b] > 0:
                    factor = repeats if times[i, code[i, b], b] > 0 else 1.0
                    for m in range(now):
                        log_weights[i, m0 + m, b] += total[o + m] * factor
                    if number[o] <= alone_up_to:
                        for m in range(now):
                            alone[i, m0 + m, b] += total[o + m] * factor

        for p in range(size):
            i, b, o = (first + p) // prompts, (first + p) % prompts, p * many
            if effective[i, b] > 0:
                times[i, code[i, b], b] += 1
            most = log_weights[i, 0, b]
            for m in range(1, many):
                most = max(most, log_weights[i, m, b])
            for m in range(many):
                terms[o + m] = log_weights[i, m, b] - most
        exponentials(loops, terms, size * many)
        for p in range(size):
            i, b, o = (first + p) // prompts, (first + p) % prompts, p * many
            whole = terms[o]
            for m in range(1, many):
                whole += terms[o + m]
            for m in range(many):
                weight = terms[o + m] / whole
                weights[i, m, b] = weight
                if m == 0:
                    for k in range(len(lanes)):
                        lanes[k] = weight * by_atom[0, k]
                else:
                    for k in range(len(lanes)):
                        lanes[k] += weight * by_atom[m, k]
            for k in range(dim):
                mean[i, k, b] = lanes[k]
