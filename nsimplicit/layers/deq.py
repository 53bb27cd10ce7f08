"""Deep equilibrium layers: the fixed point of a cell, a penalty that keeps it near, and how fast it contracts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._errors import InputError, message
from nsimplicit._tree import Space
from nsimplicit.derivatives.base import Derivative
from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.fixed_point import Solution, fixed_point
from nsimplicit.implicit.tap import Report
from nsimplicit.solvers.anderson import Anderson
from nsimplicit.solvers.base import Solver

Cell = Callable[[Any, Any], Any]


def deq(
    cell: Cell,
    x: Any,
    *,
    z0: Any = None,
    solver: Solver = Anderson(),
    derivative: Derivative = Implicit(),
    tol: Any = None,
    max_steps: Any = 100,
    batch_axis: int | None = 0,
    axis_name: str | tuple[str, ...] = (),
    tap: Report | None = None,
) -> Solution:
    """The fixed point of a cell, each sample of the batch by itself; a :func:`nsimplicit.fixed_point` with a batch.

    Formula: ``Solution.z`` solves z = cell(z, x).

    Args:
        cell: ``cell(z, x) -> z`` for the whole batch; it may close over parameters, a flax or equinox module say.
            What is random (a dropout mask) is drawn before the call, so that every step sees the same, and
            statistics of a normalisation are not updated in it.
        x: input, any pytree; differentiated, like what the cell closes over.
        z0: where to start, any pytree; ``None``: zeros like x, for a cell whose state looks like its input.
            The state of the last training step on the same samples is a warm start.
        solver: the forward iteration.
        derivative: what the backward pass is: ``Implicit(linear_solver, guard)``, whose linear solver may be
            another fixed-point iteration (``FixedPointAdjoint(Anderson())``); ``OneStep()``;
            ``Truncated(k, damping)``, the phantom gradient; ``Unrolled(k)``, with ``checkpoint=True`` if need be.
        tol: a sample stops when ‖cell(z, x) - z‖ <= tol·(1 + ‖z‖); default eps^(2/3). Tolerance and steps of the
            backward pass are those of its linear solver.
        max_steps: largest number of steps.
        batch_axis: axis of the samples in every leaf of the state; ``None``: one sample.
        axis_name: mesh axes over which one sample is split inside ``shard_map``.
        tap: :func:`nsimplicit.tap`, the probe of the backward pass.

    Returns:
        A :class:`nsimplicit.Solution`: ``value``, and ``converged``, ``num_steps``, ``residual`` of each sample.

    Raises:
        InputError: a leaf of the state has no batch axis, or the cell does not return a state like z0.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> x, w = jnp.array([[1.0, 0.0], [0.0, -1.0]]), 0.5
        >>> loss = lambda w: nsi.layers.deq(lambda z, x: nsi.relu(w * z + x), x).value.sum()
        >>> float(loss(0.5)), float(jax.grad(loss)(0.5))
        (2.0, 4.0)

    References:
        S. Bai, J. Z. Kolter, V. Koltun, Deep equilibrium models, NeurIPS 2019.
    """
    z0 = jax.tree.map(jnp.zeros_like, x) if z0 is None else z0
    return fixed_point(
        cell,
        z0,
        x,
        solver=solver,
        derivative=derivative,
        tol=tol,
        max_steps=max_steps,
        batch_axis=batch_axis,
        axis_name=axis_name,
        tap=tap,
    )


def jacobian_penalty(cell: Cell, z: Any, x: Any, key: jax.Array, *, num_samples: int = 1) -> jax.Array:
    """An unbiased estimate of ‖J‖²_F / n, J the Jacobian of the cell in z, n the number of entries of z.

    Added to a loss it keeps the cell contracting, and both passes short. ``z`` should be the solution of
    :func:`deq`: its own derivative is part of this one's, unless it is behind ``stop_gradient``.

    Args:
        cell: ``cell(z, x) -> z``.
        z: where J is taken.
        x: input.
        key: of the random directions.
        num_samples: directions; the variance falls as one over their number.

    Returns:
        A scalar, dimensionless.

    Raises:
        InputError: ``num_samples`` < 1.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> float(nsi.layers.jacobian_penalty(lambda z, x: 0.5 * z + x, jnp.ones(3), jnp.ones(3), jax.random.key(0)))
        0.25

    References:
        S. Bai, V. Koltun, J. Z. Kolter, Stabilizing equilibrium models by Jacobian regularization, ICML 2021.
    """
    if num_samples < 1:
        found = f"num_samples is {num_samples}."
        raise InputError(message("layers.jacobian_penalty(...)", found, "It is a number of random directions.", "1"))
    space, size = Space(), sum(leaf.size for leaf in jax.tree.leaves(z))
    _, pull = jax.vjp(lambda z: cell(z, x), z)

    def squared(key: jax.Array) -> jax.Array:
        (row,) = pull(_random(key, z, jax.random.rademacher))
        return space.dot(row, row) / size

    return jnp.mean(lax.map(squared, jax.random.split(key, num_samples)))


def spectral_radius(
    cell: Cell, z: Any, x: Any, key: jax.Array, *, num_steps: int = 50, batch_axis: int | None = 0
) -> jax.Array:
    """An estimate of the spectral radius of the Jacobian of the cell in z, one for each sample.

    Below 1 the cell contracts near z, and plain iteration gains a factor of about this a step, in both passes.

    Args:
        cell: ``cell(z, x) -> z``.
        z: where the Jacobian is taken: the solution of :func:`deq`.
        x: input.
        key: of the random start.
        num_steps: products with the Jacobian. The growth over the second half of them is averaged, so that pairs
            of complex eigenvalues, which make it swing, do no harm.
        batch_axis: as in :func:`deq`.

    Returns:
        Shape ``(samples,)``, or a scalar with ``batch_axis=None``; no derivative.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> z, x = jnp.ones((2, 1)), jnp.array([[0.5], [-0.8]])
        >>> nsi.layers.spectral_radius(lambda z, x: z * x, z, x, jax.random.key(0)).round(4).tolist()
        [0.5, 0.8]
    """
    z, x = lax.stop_gradient((z, x))
    space = Space(batch_axis)
    space.check(z, "layers.spectral_radius")
    _, push = jax.linearize(lambda z: cell(z, x), z)

    def step(v: Any, _: None) -> tuple[Any, jax.Array]:
        size = space.norm(v)
        v = push(space.scale(1 / jnp.where(size > 0, size, 1), v))
        return v, space.norm(v)

    _, growth = lax.scan(step, _random(key, z, jax.random.normal), length=num_steps)
    return lax.stop_gradient(jnp.exp(jnp.mean(jnp.log(growth[num_steps // 2 :]), axis=0)))


def _random(key: jax.Array, like: Any, draw: Callable[..., jax.Array]) -> Any:
    """Independent random numbers with the structure, shapes and dtypes of a tree."""
    leaves, tree = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    return tree.unflatten([draw(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)])
