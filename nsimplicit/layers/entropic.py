"""Entropic optimal transport as a fixed point, in units of epsilon: the maps, their data, the value.

With c = cost/epsilon the plan is P_ij = a_i b_j exp(phi_i + gamma_j - c_ij), and the potentials solve

    gamma_j = -beta·log Σ_i a_i exp(phi_i - c_ij),    phi_i = -alpha·log Σ_j b_j exp(gamma_j - c_ij),

alpha = 1 / (1 + epsilon/rho_a), beta likewise; both are 1 where the marginals are exact. One potential is
eliminated: the state is phi alone. With r = P1 and q = Pᵀ1 the derivative of that map is

    alpha·beta·diag(1/r) P diag(1/q) Pᵀ,

which w = sqrt(r) phi makes symmetric, with eigenvalues between 0 and alpha·beta. In the balanced problem
phi + t, gamma - t is the same plan: sqrt(r) is an eigenvector with eigenvalue 1. The map is followed by the
projection beside it; I - T' is then symmetric positive definite, its smallest eigenvalue 1 minus the second of
the matrix above. A weight of zero has no part in the state, and keeps its derivative, since weights enter as they
are and not as logarithms.

Around potentials (phi0, gamma0) the same map is two products with one matrix, K = exp(phi0 + gamma0 - c), for the
differences delta = phi - phi0, eta = gamma - gamma0: no exponential of a matrix in a step, nor in a tangent product.

References:
    M. Cuturi, Sinkhorn distances, NeurIPS 2013; L. Chizat et al., Scaling algorithms for unbalanced optimal
    transport problems, Math. Comp. 2018; B. Schmitzer, Stabilized sparse scaling algorithms for entropy
    regularized transport problems, SISC 2019 (absorption); E. Pauwels, S. Vaiter, The derivatives of
    Sinkhorn-Knopp converge, SIOPT 2023.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data


@data
class Scaled:
    """The problem in units of epsilon: weights, cost, damping of the two half steps, 1.0 where balanced else 0.0."""

    a: jax.Array
    b: jax.Array
    cost: jax.Array
    alpha: jax.Array
    beta: jax.Array
    balanced: jax.Array


@data
class Absorbed:
    """Potentials written into a kernel, the scale of the state, and nan where no derivative is to be given (else 0)."""

    kernel: jax.Array
    phi: jax.Array
    gamma: jax.Array
    scale: jax.Array
    lost: Any = 0.0


def scaled(a: jax.Array, b: jax.Array, cost: jax.Array, epsilon: jax.Array, rho_a: Any, rho_b: Any) -> Scaled:
    """The problem in units of epsilon; what cannot be a weight or an epsilon becomes nan."""
    a, b = (jnp.where(x >= 0, x, jnp.nan) for x in (a, b))
    epsilon = jnp.where(epsilon > 0, epsilon, jnp.nan)
    forbidden = cost == jnp.inf
    c = jnp.where(forbidden, jnp.inf, jnp.where(forbidden, 0, cost) / epsilon)
    balanced = (jnp.isinf(rho_a) & jnp.isinf(rho_b)).astype(a.dtype)
    return Scaled(a, b, c, 1 / (1 + epsilon / rho_a), 1 / (1 + epsilon / rho_b), balanced)


def scale_of(mass: jax.Array) -> jax.Array:
    """The square root of the share of each point: in it the state's norm is a mean, and its Jacobian symmetric."""
    return lax.stop_gradient(jnp.sqrt(mass / mass.sum()))


def unscale(w: jax.Array, scale: jax.Array) -> jax.Array:
    """The potential of a state; 0 where the weight is."""
    return jnp.where(scale > 0, w / jnp.where(scale > 0, scale, 1), 0)


def _pin(w: jax.Array, scale: jax.Array, ot: Scaled) -> jax.Array:
    return w - ot.balanced * (scale @ w) / (scale @ scale) * scale


def log_gamma(phi: jax.Array, ot: Scaled) -> jax.Array:
    """The second potential, from sums of exponentials that cannot overflow."""
    return _finite(-ot.beta * jax.nn.logsumexp((phi + jnp.log(ot.a))[:, None] - ot.cost, 0))


def log_phi(gamma: jax.Array, ot: Scaled) -> jax.Array:
    """The first potential, likewise."""
    return _finite(-ot.alpha * jax.nn.logsumexp(gamma + jnp.log(ot.b) - ot.cost, 1))


def _finite(potential: jax.Array) -> jax.Array:
    return jnp.where(potential == jnp.inf, 0, potential)  # a point whose every pair is forbidden


def absorb(phi: jax.Array, gamma: jax.Array, scale: jax.Array, ot: Scaled) -> Absorbed:
    """The kernel around two potentials, differentiable in the cost; they are constants of the equation.

    An exponent can be large only where a weight is zero or tiny, and the plan is too whatever the kernel.
    """
    phi, gamma = lax.stop_gradient((phi, gamma))
    exponent = phi[:, None] + gamma - ot.cost
    most = -0.5 * math.log(jnp.finfo(phi.dtype).tiny)
    return Absorbed(jnp.exp(jnp.where(exponent > most, most, exponent)), phi, gamma, scale)


def half_steps(delta: jax.Array, around: Absorbed, ot: Scaled) -> tuple[jax.Array, jax.Array]:
    """Both half steps by products with the kernel: delta after them, and eta between them."""
    columns = jnp.matmul(ot.a * jnp.exp(delta), around.kernel, precision="highest")
    eta = (ot.beta - 1) * around.gamma - ot.beta * _log(columns)
    rows = jnp.matmul(around.kernel, ot.b * jnp.exp(eta), precision="highest")
    return (ot.alpha - 1) * around.phi - ot.alpha * _log(rows), eta


def sweep(delta: jax.Array, around: Absorbed, ot: Scaled) -> tuple[jax.Array, jax.Array]:
    """The same, with the derivative in an entry of ``a`` that is 0.

    The state has no delta there, and values do not need it; the derivative does, to the second order as a function.
    """
    moved, _ = half_steps(delta, around, ot)
    drift = ot.balanced * (around.scale**2 @ (moved - delta))  # where the masses are changed differently
    return half_steps(jnp.where(ot.a > 0, delta, moved - drift), around, ot)


def _log(x: jax.Array) -> jax.Array:
    return jnp.where(x == 0, 0, jnp.log(jnp.where(x == 0, 1, x)))


def scaling_map(w: jax.Array, around: Absorbed, ot: Scaled) -> jax.Array:
    """The map of the state w = scale·delta, to be differentiated."""
    delta, _ = sweep(unscale(lose(w, around.lost), around.scale), around, ot)
    return _pin(around.scale * delta, around.scale, ot)


def bounded_map(w: jax.Array, around: Absorbed, ot: Scaled) -> jax.Array:
    """The same, to be iterated: at rest, where a solver stops, if what has underflowed in the kernel may soon count."""
    delta = unscale(w, around.scale)
    moved = _pin(around.scale * half_steps(delta, around, ot)[0], around.scale, ot)
    return jnp.where(within(delta, 0.5), moved, w)


def within(difference: jax.Array, share: float) -> jax.Array:
    """Whether every entry is within a share of what a kernel allows: 236 in float64, 29 in float32."""
    most = share * math.log(jnp.finfo(difference.dtype).tiny) / 3
    return jnp.all(difference**2 < most**2)


@jax.custom_jvp
def lose(x: jax.Array, lost: Any) -> jax.Array:
    """x, whose derivative is nan where ``lost`` is: the tangent system then fails its guard, and a zero passes."""
    del lost
    return x


@lose.defjvp
def _lose_jvp(primals: Any, tangents: Any) -> Any:
    return lose(*primals), tangents[0] * (1 + primals[1])


@jax.custom_jvp
def dual_value(data: Any, fixed: Any) -> jax.Array:
    """The dual objective, which is the value at the potentials that maximise it.

    They do, so the derivative of the value is that of the objective with the potentials held (Danskin); the rule
    says so. Its own derivative has those of the potentials in it: derivatives of every order are right.

    Args:
        data: ``(a, b, kernel, epsilon, rho_a, rho_b)``.
        fixed: ``(phi, gamma, delta, eta)``, the potentials and their part that is not in the kernel.
    """
    return _objective(data, fixed)


@dual_value.defjvp
def _dual_value_jvp(primals: Any, tangents: Any) -> Any:
    data, fixed = primals
    slope = jax.jvp(lambda data: _objective(data, fixed), (data,), (tangents[0],))[1]
    return dual_value(data, fixed), slope


def _objective(data: Any, fixed: Any) -> jax.Array:
    a, b, kernel, epsilon, rho_a, rho_b = data
    phi, gamma, delta, eta = fixed
    rows = jnp.matmul(kernel, b * jnp.exp(eta), precision="highest")
    total = (a * jnp.exp(delta)) @ rows
    gain = a @ target(epsilon * phi, rho_a) + b @ target(epsilon * gamma, rho_b)
    return gain - epsilon * (total - a.sum() * b.sum())


def target(potential: jax.Array, rho: Any) -> jax.Array:
    """rho·(1 - exp(-potential/rho)); the potential itself where rho is infinite."""
    exact = jnp.isinf(rho)
    finite = jnp.where(exact, 1, rho)
    return jnp.where(exact, potential, -finite * jnp.expm1(-potential / finite))


def marginals(around: Absorbed, ot: Scaled) -> tuple[jax.Array, jax.Array]:
    """Row and column sums of the plan at the potentials in the kernel, the second one improved by a half step."""
    _, eta = half_steps(jnp.zeros_like(ot.a), around, ot)
    v = ot.b * jnp.exp(eta)
    rows = ot.a * jnp.matmul(around.kernel, v, precision="highest")
    return rows, v * jnp.matmul(ot.a, around.kernel, precision="highest")
