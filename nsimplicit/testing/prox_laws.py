"""Laws that every function with a prox obeys; each is a function of a :class:`Case` that raises where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit.prox.conjugate import Conjugate
from nsimplicit.testing.case import Case, draws, pack, unpacker

SELECTIONS = (0.0, 0.25, 0.5, 1.0)


def agrees(case: Case) -> None:
    """Value and prox are those found by other means."""
    g = jax.jit(case.function.__call__)
    for x in case.every_point:
        np.testing.assert_allclose(g(x), case.value_at(x), rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(pack(case.apply(x)), pack(case.prox_at(x)), rtol=1e-13, atol=1e-14)


def minimises(case: Case) -> None:
    """g(u) >= g(p) + <(x - p)/step, u - p> for every u: for convex g this says that p minimises.

    Where g is not convex: no u has a smaller g(u) + ‖u - x‖²/(2 step).
    """
    rng, convex = np.random.default_rng(0), case.function.is_convex
    for x in map(case.space, case.every_point):
        p = case.apply(x)
        bottom = case.value_at(unpacker(p)(np.round(pack(p), 14)) if case.is_set else p)  # it knows no rounding
        assert np.isfinite(bottom), f"{case.name}: the prox at {x} is outside of the domain"
        slope = (pack(x) - pack(p)) / case.step
        # Random points are rarely feasible; proxes of random points always are.
        around = draws(rng, case, p, 40) + [case.prox_at(u) for u in draws(rng, case, x, 40, 3.0)]
        for u in map(case.space, around):
            move = pack(u) - pack(p)
            curvature = 0.0 if convex else move @ move / (2 * case.step)
            least = bottom + slope @ move - curvature - 1e-12 * (1 + abs(bottom))
            assert case.value_at(u) >= least, f"{case.name}: {u} is better than the prox at {x}"


def contracts(case: Case) -> None:
    """‖p - q‖² <= <p - q, x - y>; a contraction by 1/(1 + step mu), and by no more than 1/(1 + step L)."""
    rng, g = np.random.default_rng(1), case.function
    slow = 1 / (1 + case.step * float(g.strong_convexity))
    fast = 0.0 if g.lipschitz is None else 1 / (1 + case.step * float(g.lipschitz))
    for x in map(case.space, case.every_point):
        for y in map(case.space, draws(rng, case, x, 10, 3.0)):
            p, q = case.apply(x), case.apply(y)
            np.testing.assert_allclose(pack(q), pack(case.prox_at(y)), rtol=1e-12, atol=1e-13)
            move, shift = pack(p) - pack(q), pack(x) - pack(y)
            size, rounding = np.linalg.norm(shift), 1e-14
            assert move @ move <= move @ shift + rounding * size, f"{case.name}: not firmly nonexpansive"
            moved = np.linalg.norm(move)
            assert moved <= slow * size + rounding, f"{case.name}: strong_convexity is overstated"
            assert moved >= fast * size - rounding, f"{case.name}: lipschitz is understated"


def biconjugate(case: Case) -> None:
    """The conjugate of the conjugate has the same prox, by Moreau's identity twice."""
    twice = jax.jit(Conjugate(Conjugate(case.function)).prox)
    for x in case.every_point:
        np.testing.assert_allclose(pack(twice(x, case.step)), pack(case.apply(x)), rtol=1e-12, atol=1e-13)


def projects(case: Case) -> None:
    """The projection is in the set, is its own projection, and does not depend on the step."""
    g: Any = case.function
    project, prox_far, inside = jax.jit(g.project), jax.jit(lambda x: g.prox(x, 7.0)), jax.jit(g.__call__)
    for x in case.every_point:
        p = project(x)
        assert inside(p) == 0, f"{case.name}: the projection of {x} is not in the set"
        np.testing.assert_allclose(pack(project(p)), pack(p), rtol=1e-15, atol=1e-15)
        np.testing.assert_array_equal(pack(prox_far(x)), pack(p))


def symmetric(case: Case) -> None:
    """For every selection the Jacobian is symmetric, with spectrum in [0, 1], the same in both modes."""
    for x in case.every_point:
        for s in SELECTIONS if case.selection else (0.0,):
            _, reverse, forward = case.evaluate(x, s)
            np.testing.assert_allclose(forward, reverse, rtol=0, atol=1e-14)
            J = case.jacobian(x, s)
            np.testing.assert_allclose(J, J.T, rtol=0, atol=1e-14)
            spectrum = np.linalg.eigvalsh((J + J.T) / 2)
            assert spectrum[0] >= -1e-14 and spectrum[-1] <= 1 + 1e-14, f"{case.name}: {spectrum} at {x}"


def one_sided(case: Case) -> np.ndarray:
    """Which entries of (point, step, parameters) belong to a parameter that cannot decrease."""
    blocks = [np.zeros(pack(case.every_point[0]).size + 1, bool)]
    return np.concatenate(blocks + [np.full(np.size(p), i in case.at_bound) for i, p in enumerate(case.params)])


def differentiates(case: Case) -> None:
    """Off kinks the derivatives in the point, the step and every parameter are differences of the prox."""
    h, bounded = 1e-5, one_sided(case)
    for i, x in enumerate(case.points):
        args = case.arguments(x)
        z, unpack = pack(args), unpacker(args)

        def oracle(z: np.ndarray, unpack: Any = unpack, x: Any = x) -> np.ndarray:
            if case.prox is None or case.own_differences:
                return np.asarray(case.compiled(*case.shape(x))(z, 0.0)[0])
            x, step, *params = unpack(z)
            return pack(case.prox(x, step, *params))

        def difference(k: int, z: np.ndarray = z, oracle: Any = oracle) -> np.ndarray:
            d = np.where(np.arange(z.size) == k, h, 0.0)
            if bounded[k]:
                return (4 * oracle(z + d) - 3 * oracle(z) - oracle(z + 2 * d)) / (2 * h)
            return (oracle(z + d) - oracle(z - d)) / (2 * h)

        # An infinite bound has no influence. The differences err by h² times third derivatives, and by 1e-15/h.
        want = np.stack([difference(k) if np.isfinite(z[k]) else 0 * oracle(z) for k in range(z.size)], axis=1)
        np.testing.assert_allclose(case.evaluate(x)[1], want, rtol=0, atol=1e-8, err_msg=f"{case.name}, point {i}")


def curves(case: Case, *, twice_reversed: bool = False) -> None:
    """Second derivatives are differences of the first."""
    args = case.arguments(case.points[0])
    z, unpack = pack(args), unpacker(args)
    weights, direction = np.random.default_rng(2).normal(size=(2, z.size))
    direction = np.where(one_sided(case) | np.isinf(z), 0, direction)

    def scalar(z: jax.Array) -> jax.Array:
        x, step, *params = unpack(z)
        out = pack(case.make(*params).prox(x, step), jnp)
        return jnp.sum(jnp.sin(out) * weights[: out.size])

    @jax.jit
    def orders(z: jax.Array) -> tuple[jax.Array, ...]:
        gradient = jax.grad(scalar)
        both = jax.jvp(gradient, (z,), (direction,))
        if not twice_reversed:
            return *both, both[1]
        return *both, jax.grad(lambda z: direction @ jnp.where(direction == 0, 0, gradient(z)))(z)

    h = 1e-5
    _, forward, reverse = orders(z)
    want = (orders(z + h * direction)[0] - orders(z - h * direction)[0]) / (2 * h)
    np.testing.assert_allclose(forward, want, rtol=0, atol=1e-7)
    np.testing.assert_allclose(reverse, forward, rtol=1e-12, atol=1e-13)


def limits(case: Case) -> None:
    """Around a kink every Jacobian is near a vertex, and every vertex is met: both inclusions."""
    rng, radius = np.random.default_rng(3), 1e-6
    for x, vertices in case.kinks:
        nearby = pack(x) + radius * rng.normal(size=(100, pack(x).size))
        found = np.stack([case.jacobian(unpacker(x)(v), 0.3) for v in nearby])
        distances = np.abs(found[:, None] - np.stack(vertices)).max(axis=(2, 3))
        assert distances.min(axis=1).max() < 100 * radius, f"{case.name}: a Jacobian near {x} is no vertex"
        assert distances.min(axis=0).max() < 100 * radius, f"{case.name}: no Jacobian near {x} is this vertex"


def distance_to_hull(matrix: np.ndarray, vertices: Sequence[np.ndarray]) -> float:
    """Residual of writing a matrix as a convex combination."""
    from scipy.optimize import nnls

    columns = np.stack([np.append(v.ravel(), 1.0) for v in vertices], axis=1)
    return float(nnls(columns, np.append(matrix.ravel(), 1.0))[1])


def selects(case: Case) -> None:
    """At a kink the selections 0 and 1 give vertices, others mixtures of them."""
    for x, vertices in case.kinks:
        for s in (0.0, 1.0):
            J = case.jacobian(x, s)
            assert min(np.abs(J - v).max() for v in vertices) < 1e-14, f"{case.name}: at {x} {s} gives no vertex"
        for s in (0.25, 0.5):
            assert distance_to_hull(case.jacobian(x, s), vertices) < 1e-12, f"{case.name}: {s} leaves the hull at {x}"
        if len(vertices) > 1 and case.selection:
            moved = np.abs(case.jacobian(x, 0.0) - case.jacobian(x, 1.0)).max()
            assert moved > 1e-3, f"{case.name}: the selection does nothing at {x}"


def eager(case: Case) -> None:
    """Without jit the prox is the same, and has the structure of the point."""
    x = case.every_point[-1]
    p = case.function.prox(x, case.step)
    assert jax.tree.structure(p) == jax.tree.structure(x)
    np.testing.assert_allclose(pack(p), pack(case.apply(x)), rtol=1e-13, atol=1e-14)


def lanes(case: Case) -> None:
    """vmap over objects, points and steps gives the prox of every lane."""
    x = case.every_point[-1]
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), (case.function, x, np.float64(case.step)))
    both = jax.jit(jax.vmap(lambda g, x, s: g.prox(x, s)))(*batch)
    for k in range(2):
        lane = pack(jax.tree.map(lambda b, k=k: b[k], both))
        np.testing.assert_allclose(lane, pack(case.apply(x)), rtol=1e-13, atol=1e-14)


def keeps_precision(case: Case) -> None:
    """A state in low precision stays in it, and near; parameters are in float64: the state decides."""
    x, g = case.every_point[0], case.function
    is_complex = np.iscomplexobj(jax.tree.leaves(x)[0])
    for dtype in (jnp.complex64,) if is_complex else (jnp.float32, jnp.bfloat16):
        got = jax.jit(g.prox)(jax.tree.map(lambda u, d=dtype: jnp.asarray(u, d), x), case.step)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got)), f"{case.name}: does not keep {dtype}"
        wide = jax.tree.map(lambda u: np.asarray(u, complex if np.iscomplexobj(u) else float), got)
        # A prox is nonexpansive: the errors are those of rounding x, the parameters and the result.
        tolerance = 8 * float(jnp.finfo(dtype).eps) * max(1, np.abs(pack(x)).max())
        np.testing.assert_allclose(pack(wide), pack(case.prox_at(x)), rtol=0, atol=tolerance)


def ascends(case: Case) -> None:
    """The gradient of a smooth function is the difference of its values, and monotone as its constants say."""
    g, rng = case.function, np.random.default_rng(4)
    first = case.points[0]
    x = first if np.isfinite(case.value_at(first)) else case.prox_at(first)
    unpack, v, h = unpacker(x), pack(x), 1e-5
    want = [(case.value_at(unpack(v + d)) - case.value_at(unpack(v - d))) / (2 * h) for d in np.eye(v.size) * h]
    gradient = jax.jit(g.gradient)
    got = pack(gradient(x))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8)
    for y in draws(rng, case, x, 5, 0.1):
        change, shift = pack(gradient(y)) - got, pack(y) - v
        least = g.strong_convexity * (shift @ shift) - 1e-12
        assert change @ shift >= least, f"{case.name}: strong_convexity is overstated"
        most = np.inf if g.lipschitz is None else g.lipschitz * np.linalg.norm(shift) + 1e-12
        assert np.linalg.norm(change) <= most, f"{case.name}: lipschitz is understated"


FOR_ALL = (agrees, minimises, differentiates, limits, selects, eager, lanes, keeps_precision)
FOR_CONVEX = (contracts, biconjugate, symmetric)
LAWS = {law.__name__: law for law in (*FOR_ALL, *FOR_CONVEX, projects, ascends, curves)}
