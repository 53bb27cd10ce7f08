"""cvxpylayers in the races of quadratic programs: all programs of a batch at once, as it takes them; not compiled.

CVXPY wants the root R of P = RᵀR, so that the problem is convex whatever the parameters are; it is taken beforehand.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.race import Entrant, absent


def entrant(problem: Callable[[Any, Any], Any], data: tuple[Any, ...], target: Any) -> Entrant:
    """The gradients of ½‖z - target‖² in q, of every program.

    Args:
        problem: ``(cvxpy, parameters) -> (variable, constraints)``, for the parameters after P and q; None for those
            that are empty.
        data: P, q and the parameters, each for all programs.
        target: of each program.
    """
    name = "cvxpylayers (SCS, diffcp)"
    P, q, *rest = map(np.asarray, data)
    root = jnp.asarray(np.linalg.cholesky(P + 1e-12 * np.eye(P.shape[-1])).transpose(0, 2, 1))
    args = (jnp.asarray(q), root, *(jnp.asarray(p) for p in rest if p.size), jnp.asarray(target))
    try:
        import cvxpy
        from cvxpylayers.jax import CvxpyLayer
    except ImportError as failure:
        return absent(name, failure, args)
    slope, R = cvxpy.Parameter(q.shape[1:]), cvxpy.Parameter(root.shape[1:])
    parameters = [cvxpy.Parameter(p.shape[1:]) if p.size else None for p in rest]
    z, constraints = problem(cvxpy, parameters)
    given = [R, slope, *(p for p in parameters if p is not None)]
    objective = cvxpy.Minimize(0.5 * cvxpy.sum_squares(R @ z) + slope @ z)
    layer = CvxpyLayer(cvxpy.Problem(objective, constraints), given, [z])

    def loss(q: jax.Array, R: jax.Array, *rest: jax.Array) -> jax.Array:
        *parameters, target = rest
        return jnp.sum((layer(R, q, *parameters)[0] - target) ** 2) / 2

    return Entrant(name, jax.grad(loss), args, jitted=False)
