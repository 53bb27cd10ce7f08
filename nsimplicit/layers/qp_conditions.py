"""The optimality conditions of a quadratic program as a fixed point, and what their Jacobian is made of.

z = (x, y, lambda) is a solution with its multipliers if and only if it is a fixed point of

    T(z) = (clip(x - p (P x + q + Aᵀy + Gᵀlambda), lo, hi),  y + a (A x - b),  relu(lambda + g (G x - h)))

for any positive steps p, a, g. All kinks are relu's with weight one on "the constraint is active".
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, blank
from nsimplicit.implicit.equation import FixedPointEquation, Map
from nsimplicit.layers.qp_program import Program
from nsimplicit.linear_solvers.operator import Operator, Product, Saddle
from nsimplicit.primitives import relu

State = tuple[jax.Array, jax.Array, jax.Array]


@config
class Conditions(FixedPointEquation):
    """The fixed-point equation of a program's optimality conditions.

    Args:
        maps: ``(forward, prox)``.
        hessian: z -> (matrices, steps) of :class:`Saddle`.
    """

    maps: tuple[Map, ...]
    hessian: Map | None = None

    def operator(self, products: tuple[Product, ...], space: Space, hessian: Any = None) -> Operator:
        """M = I - D S: the weights D are what the prox does to a vector of ones."""
        forward, prox = products
        (P, A, G), steps = hessian
        weights = prox(tuple(blank(m[..., 0]) + 1 for m in (P, A, G)))

        def product(v: State) -> State:
            x, y, z = prox(forward(v))
            return v[0] - x, v[1] - y, v[2] - z

        return Operator(product, Saddle(weights, (P, A, G), steps), space)


def steps_for(program: Program) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Steps that make rows of all three kinds comparable; they do not change the solution."""
    P, A, G = lax.stop_gradient((program.P, program.A, program.G))
    curvature = jnp.trace(P) / len(P)
    curvature = jnp.where(curvature > 0, curvature, 1)

    def rows(matrix: jax.Array) -> jax.Array:
        squares = jnp.sum(matrix * matrix, 1)
        return curvature / jnp.where(squares > 0, squares, 1)

    return 1 / curvature, rows(A), rows(G)


def finite(bound: jax.Array, instead: Any) -> jax.Array:
    """The bound, and where it is infinite (not there) a constant that is never reached."""
    there = jnp.isfinite(bound)
    return jnp.where(there, bound, lax.stop_gradient(jnp.where(there, 0, instead)))


def conditions(program: Program, steps: Any, scale: tuple[Any, Any], selection: Any = None) -> Conditions:
    """The equation of a program.

    Args:
        program: its data.
        steps: (p, a, g), constants.
        scale: by how much x, and each multiplier, may be off: closer kinks are taken for exact ties.
        selection: weight on "the constraint is active" where one is weakly active; ``None``: relu's own, 0.
    """
    P, q, A, b, G, h, lo, hi = (getattr(program, name) for name in ("P", "q", "A", "b", "G", "h", "lo", "hi"))
    p, a, g = steps
    near_x, near_z = lax.stop_gradient(scale)

    def tied(u: jax.Array, near: jax.Array) -> jax.Array:
        """u, and exactly zero where it is no further from it than rounding may have brought it."""
        value = lax.stop_gradient(u)
        return u - jnp.where((value <= near) & (value >= -near), value, 0)

    def forward(z: State) -> State:
        x, y, m = z
        inside = finite(h, G @ x + 1) if h.size else h
        gradient = P @ x + q + A.T @ y + G.T @ m
        return x - p * gradient, y + a * (A @ x - b), m + g * (G @ x - inside)

    def prox(w: State) -> State:
        u, v, m = w
        if lo is not None:
            u = u + relu(tied(finite(lo, u - 1 - u * u) - u, near_x), selection=selection)
        if hi is not None:
            u = u - relu(tied(u - finite(hi, u + 1 + u * u), near_x), selection=selection)
        return u, v, relu(tied(m, near_z), selection=selection) if h.size else m

    return Conditions((forward, prox), lambda z: ((P, A, G), steps))
