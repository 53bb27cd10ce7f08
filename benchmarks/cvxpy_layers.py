"""cvxpylayers in the races of quadratic programs: all programs of a batch at once, as it takes them; not compiled.

CVXPY wants the root R of P = RᵀR, so that the problem is convex whatever the parameters are; it is taken beforehand.
The derivative is diffcp's by LSQR. On the programs of 50 variables that is wrong, however accurate the solution;
diffcp's dense factorisation is right to 1e-10 there, but the layer cannot ask for it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.race import Entrant, absent

NAME = "cvxpylayers (SCS, diffcp)"


def nonnegative(P: np.ndarray, q: np.ndarray, target: np.ndarray) -> Entrant:
    """The gradients of ½‖z - target‖² in q, of every program over z >= 0."""
    return _entrant(P, q, target, (), lambda z: [z >= 0])


def inequalities(P: np.ndarray, q: np.ndarray, G: np.ndarray, h: np.ndarray, target: np.ndarray) -> Entrant:
    """The same, of every program over G z <= h."""
    return _entrant(P, q, target, (G, h), lambda z, G, h: [G @ z <= h])


def _entrant(P: np.ndarray, q: np.ndarray, target: np.ndarray, rows: tuple[Any, ...], constraints: Any) -> Entrant:
    root = np.linalg.cholesky(P).transpose(0, 2, 1)
    args = tuple(map(jnp.asarray, (q, root, target, *rows)))
    try:
        import cvxpy
        from cvxpylayers.jax import CvxpyLayer
    except ImportError as failure:
        return absent(NAME, failure, args)
    z, slope, R = cvxpy.Variable(q.shape[1]), cvxpy.Parameter(q.shape[1]), cvxpy.Parameter(root.shape[1:])
    given = [cvxpy.Parameter(x.shape[1:]) for x in rows]
    cost = cvxpy.Minimize(0.5 * cvxpy.sum_squares(R @ z) + slope @ z)
    layer: Any = CvxpyLayer(cvxpy.Problem(cost, constraints(z, *given)), [R, slope, *given], [z])

    def loss(q: jax.Array, R: jax.Array, target: jax.Array, *rows: jax.Array) -> jax.Array:
        return jnp.sum((layer(R, q, *rows)[0] - target) ** 2) / 2

    return Entrant(NAME, jax.grad(loss), args, jitted=False)
