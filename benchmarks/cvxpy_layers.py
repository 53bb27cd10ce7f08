"""cvxpylayers in the races of quadratic programs: all programs of a batch at once, as it takes them; not compiled.

CVXPY wants the root R of P = RᵀR, so that the problem is convex whatever the parameters are; it is taken beforehand.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.race import Entrant, absent


def nonnegative(P: np.ndarray, q: np.ndarray, target: np.ndarray) -> Entrant:
    """The gradients of ½‖z - target‖² in q, of every program over z >= 0."""
    name = "cvxpylayers (SCS, diffcp)"
    root = jnp.asarray(np.linalg.cholesky(P).transpose(0, 2, 1))
    args = (jnp.asarray(q), root, jnp.asarray(target))
    try:
        import cvxpy
        from cvxpylayers.jax import CvxpyLayer
    except ImportError as failure:
        return absent(name, failure, args)
    z, slope, R = cvxpy.Variable(q.shape[1]), cvxpy.Parameter(q.shape[1]), cvxpy.Parameter(root.shape[1:])
    problem = cvxpy.Problem(cvxpy.Minimize(0.5 * cvxpy.sum_squares(R @ z) + slope @ z), [z >= 0])
    layer: Any = CvxpyLayer(problem, [R, slope], [z])

    def loss(q: jax.Array, R: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.sum((layer(R, q)[0] - target) ** 2) / 2

    return Entrant(name, jax.grad(loss), args, jitted=False)
