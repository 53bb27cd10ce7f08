"""How an equilibrium z = sigma(W z + r) with I - W at least m > 0 is found and differentiated.

With F = I - W and sigma the prox of a convex g, z solves 0 ∈ F z - r + ∂g(z). A splitting with step alpha looks for
v with z = prox_{alpha g}(v):

    forward-backward     v ← z - alpha (F z - r)                     factor ‖I - alpha F‖, below 1 for alpha < 2m/L²
    Peaceman-Rachford    v ← v + 2 (V (2z - v + alpha r) - z)        factor ‖(I - alpha F) V‖, below 1 for every alpha

with L = ‖F‖ and V = (I + alpha F)⁻¹. Where v is fixed z + (v - z)/alpha is u = W z + r, and z = sigma(u); for alpha = 1
it is v itself. Peaceman-Rachford's equation for alpha = 1 is what is differentiated: whatever the step of the solver
was, its kinks are those of sigma. Its tangent system is 2V (I - W J) u' = 2V r', J the Jacobian of sigma, and iterating
that is the same splitting, with the inverse at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space, is_float
from nsimplicit.fixed_point import Solution
from nsimplicit.implicit.equation import FixedPoint
from nsimplicit.implicit.process import opaque
from nsimplicit.implicit.traced import trace_equation
from nsimplicit.layers.monotone_operator import adjoint
from nsimplicit.linear_solvers import lapack
from nsimplicit.linear_solvers.dense import PLAIN_SIZE, invert
from nsimplicit.linear_solvers.fixed_point_adjoint import PlainMap
from nsimplicit.prox.base import matmul

WHERE = "layers.MonotoneDEQ"
PEACEMAN_RACHFORD, FORWARD_BACKWARD = SPLITTINGS = ("peaceman-rachford", "forward-backward")
Map = Callable[[jax.Array], jax.Array]


def solve(layer: Any, x: Any, z0: Any, alpha: Any, tol: Any, max_steps: Any, tap: Any, options: Any) -> Solution:
    """z and u with their derivatives; ``options`` is (splitting, solver, derivative)."""
    splitting, solver, derivative = options
    _check(layer, x, z0)
    floats = [leaf for leaf in jax.tree.leaves((layer, x)) if is_float(leaf)]
    low = jnp.result_type(*floats) if floats else jnp.result_type(float)
    wide = jnp.promote_types(low, jnp.float32)
    layer = jax.tree.map(lambda leaf: jnp.asarray(leaf, wide) if is_float(leaf) else leaf, layer)
    x, z0 = (None if v is None else jnp.asarray(v, wide) for v in (x, z0))
    W, space = layer.W, Space(0 if x.ndim > layer.W.rank else None)
    # A sample with a number that is not finite is solved as if it were zero, and lost at the end: the parameters, whose
    # derivative is a product with it, must not meet it.
    finite = space.dot(x, jnp.zeros_like(x)) == 0
    x = space.where(finite, x, jnp.zeros_like(x))
    r, matrices = layer.inject(x), W.matrices(W.sample_shape(x))
    V = inverses(2 * jnp.eye(W.features, dtype=matrices.dtype) - matrices)

    step, start, preactivation = _iteration(splitting, alpha, *lax.stop_gradient((layer, matrices, V, r)))
    tol = float(jnp.finfo(wide).eps) ** (2 / 3) if tol is None else tol
    v = start(jnp.zeros_like(r) if z0 is None else lax.stop_gradient(z0))
    outcome = solver.iterate(PlainMap(step), v, space, tol=tol, max_steps=max_steps)
    u = preactivation(outcome.z)
    u = space.where(finite, u, jnp.full_like(u, jnp.nan))

    sigma = layer.activation.prepare(1.0)

    def unit_step(u: jax.Array) -> jax.Array:
        z = sigma(u)
        return u + 2 * (W.multiply(V, 2 * z - u + r) - z)

    traced, vector, _ = trace_equation(FixedPoint((unit_step,)), u, space, WHERE)
    u = derivative.solve(opaque(traced, traced, vector, WHERE, tap)).z
    z = space.where(finite, sigma(u), u)  # u, so that a lost sample meets its guard: sigma may be flat at nan
    residual = jnp.where(finite, outcome.residual, jnp.nan)
    return Solution(z.astype(low), u.astype(low), outcome.converged & finite, outcome.num_steps, residual)


def _iteration(
    splitting: str, alpha: Any, layer: Any, matrices: jax.Array, V: jax.Array, r: jax.Array
) -> tuple[Map, Map, Map]:
    """v -> v, z -> v to start from, and v -> u; without derivatives."""
    W, eye = layer.W, jnp.eye(layer.W.features, dtype=matrices.dtype)
    given = alpha is not None
    if given:
        alpha = lax.stop_gradient(jnp.asarray(alpha, r.dtype))
    else:
        alpha = 1.0 if splitting == PEACEMAN_RACHFORD else W.m / squared_norm(eye - matrices)
    resolvent = inverses((1 + alpha) * eye - alpha * matrices) if given and splitting == PEACEMAN_RACHFORD else V
    prox = layer.activation.prepare(alpha)

    def explicit(z: jax.Array) -> jax.Array:
        return (1 - alpha) * z + alpha * (W.multiply(matrices, z) + r)

    def reflect(v: jax.Array) -> jax.Array:
        z = prox(v)
        return v + 2 * (W.multiply(resolvent, 2 * z - v + alpha * r) - z)

    def preactivation(v: jax.Array) -> jax.Array:
        return (1 - 1 / alpha) * prox(v) + v / alpha

    step = reflect if splitting == PEACEMAN_RACHFORD else lambda v: explicit(prox(v))
    return step, explicit, preactivation


def _check(layer: Any, x: Any, z0: Any) -> None:
    W, shape = layer.W, jnp.shape(x)
    inputs = jnp.shape(layer.U)[W.input_axis]
    if len(shape) not in (W.rank, W.rank + 1) or shape[-1] != inputs or 0 in W.sample_shape(x):
        sample = f"({inputs},)" if W.rank == 1 else f"(height, width, {inputs})"
        meaning = f"It must be {sample}, or a batch of those with one axis before."
        tries = "jax.vmap over further axes", f"x.reshape(-1, {inputs})"
        raise InputError(message(f"{WHERE}(...)(x)", f"x has shape {shape}.", meaning, *tries))
    state = (*shape[:-1], W.features)
    if z0 is not None and jnp.shape(z0) != state:
        found = f"z0 has shape {jnp.shape(z0)}, and z {state}."
        meaning = "A start is a state, such as the value of an earlier call."
        raise InputError(message(f"{WHERE}(...)(x, z0=...)", found, meaning, "z0=solution.value", "leave z0 out"))
    if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves((layer, x, z0))):
        meaning = "The prox of an activation orders its entries."
        raise InputError(message(f"{WHERE}(...)(x)", "an argument is complex.", meaning, "jnp.stack([x.real, x.imag])"))


def as_real(matrices: jax.Array) -> jax.Array:
    """Complex matrices as real ones of twice the size, [[Re, -Im], [Im, Re]]."""
    if not jnp.iscomplexobj(matrices):
        return matrices
    re, im = matrices.real, matrices.imag
    return jnp.concatenate([jnp.concatenate([re, -im], -1), jnp.concatenate([im, re], -1)], -2)


@jax.custom_jvp
def inverses(matrices: jax.Array) -> jax.Array:
    """The inverse of each matrix, without LAPACK where they are small."""
    n, real = matrices.shape[-1], as_real(matrices)
    if real.shape[-1] <= PLAIN_SIZE:
        inverse = invert(real)
    else:
        factors, order = lapack.lu(real)
        eye = jnp.broadcast_to(jnp.eye(real.shape[-1], dtype=real.dtype), real.shape)
        half = lapack.triangular(factors, jnp.take_along_axis(eye, order[..., None], -2), lower=True, unit=True)
        inverse = lapack.triangular(factors, half, lower=False)
    return lax.complex(inverse[..., :n, :n], inverse[..., n:, :n]) if jnp.iscomplexobj(matrices) else inverse


@inverses.defjvp
def _inverses_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    """(M⁻¹)' = -M⁻¹ M' M⁻¹."""
    inverse = inverses(*primals)
    return inverse, -matmul(matmul(inverse, tangents[0]), inverse)


def squared_norm(matrices: jax.Array) -> jax.Array:
    """The square of the largest spectral norm, from above, by less than n^(1/32): the trace of a high power."""
    power = matmul(adjoint(matrices), matrices)
    log = 0.0
    for doublings in range(6):
        power = matmul(power, power) if doublings else power
        size = jnp.trace(power, axis1=-2, axis2=-1).real
        log, power = 2 * log + jnp.log(size), power / size[..., None, None]
    return jnp.max(jnp.exp(log / 32))


def best_step(F: np.ndarray, m: float, splitting: str) -> float:
    """The step with the smallest factor of a splitting, for a stack of matrices F, each at least m."""
    eye, explicit = np.eye(F.shape[-1]), splitting == FORWARD_BACKWARD
    size = float(np.max(np.linalg.norm(F, 2, (-2, -1))))

    def factor(alpha: float) -> float:
        inner = eye - alpha * F
        matrices = inner if explicit else inner @ np.linalg.inv(eye + alpha * F)
        return float(np.max(np.linalg.norm(matrices, 2, (-2, -1))))

    steps = np.geomspace(m / size**2 if explicit else 1 / size, 1 / m, 12)
    for _ in range(2):
        at = int(np.argmin([factor(step) for step in steps]))
        steps = np.geomspace(steps[max(at - 1, 0)], steps[min(at + 1, 11)], 12)
    return float(np.sqrt(steps[0] * steps[-1]))
