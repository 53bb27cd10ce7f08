"""Checks of a splitting: its fixed point, the equation that is differentiated, and the derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nsimplicit.derivatives.implicit import Implicit
from nsimplicit.fixed_point import fixed_point
from nsimplicit.splittings.base import Splitting
from nsimplicit.testing.case import floats, pack, unpacker
from nsimplicit.testing.precision import require_64

SOLVED, STEP = 1e-13, 1e-5


def check_splitting(
    T: Splitting,
    z0: Any,
    *,
    objective: Callable[[Any], Any] | None = None,
    max_steps: int = 20_000,
) -> None:
    """Raise unless a splitting is a fixed-point map whose solutions, equation and derivatives agree.

    Iterating converges, and T(z) = z there; the equation that is differentiated holds there as well;
    where ``contraction`` gives a factor, no pair of points is farther apart than it allows; the
    solution minimises; the implicit derivative in all array leaves is the difference of solutions,
    the same in both modes, and under jit and vmap.

    Args:
        T: the splitting, off kinks at its solution.
        z0: a starting point.
        objective: ``objective(x)``, which the solution minimises; ``inf`` outside the domain.
        max_steps: of the iteration.

    Raises:
        AssertionError: a law fails; the message names it.
        InputError: 64-bit numbers are off.

    Example:
        >>> import jax, jax.numpy as jnp, nsimplicit as nsi
        >>> with jax.enable_x64(True):
        ...     f = nsi.prox.LeastSquares(jnp.array([[2.0, 0.5], [0.3, 1.0]]), jnp.array([3.0, 0.2]))
        ...     nsi.testing.check_splitting(nsi.splittings.ForwardBackward(f, nsi.prox.L1(0.4)), jnp.zeros(2))
    """
    require_64("check_splitting")
    rng, name = np.random.default_rng(0), type(T).__name__
    theta, rebuild = floats(T)

    def solve(theta: Any) -> Any:
        return fixed_point(rebuild(theta), z0, derivative=Implicit(), tol=SOLVED, max_steps=max_steps)

    run = jax.jit(solve)
    found = run(theta)
    assert bool(jnp.all(found.converged)), f"{name}: no convergence in {max_steps} steps"
    _holds(T, found.z, name)
    _contracts(T, found.z, name, rng)
    x = found.value
    if objective is not None:
        least = float(objective(jax.tree.map(lambda u: jnp.round(u, 12), x)))
        for size in np.logspace(0, -4, 40):
            near = unpacker(x)(pack(x) + size * rng.normal(size=pack(x).size))
            assert float(objective(near)) >= least - 1e-10 * (1 + abs(least)), f"{name}: the solution is no minimum"
    _differentiates(run, theta, x, name, rng)


def _holds(T: Splitting, z: Any, name: str) -> None:
    """T(z) = z, and the equation that is differentiated holds at z."""
    size = 1 + np.linalg.norm(pack(z))
    assert np.linalg.norm(pack(T(z)) - pack(z)) <= 10 * SOLVED * size, f"{name}: T(z) is not z"
    rule = T.prepare(z).rule
    end = z
    for apply in rule.maps:
        end = apply(end)
    off = np.linalg.norm(pack(rule.residual(z, end)))
    assert off <= 1e-9 * size, f"{name}: the equation that is differentiated is off by {off:.1e} at a fixed point of T"


def _contracts(T: Splitting, z: Any, name: str, rng: np.random.Generator) -> None:
    """No pair of points moves apart by more than the factor that ``contraction`` states."""
    factor = T.contraction(z)
    if factor is None:
        return
    apply = jax.jit(T)
    for _ in range(20):
        a, b = (unpacker(z)(pack(z) + 3 * rng.normal(size=pack(z).size)) for _ in range(2))
        apart, after = (np.linalg.norm(pack(u) - pack(v)) for u, v in ((a, b), (apply(a), apply(b))))
        assert after <= factor * apart * (1 + 1e-10), f"{name}: contracts by {after / apart:.4f}, not by {factor:.4f}"


def _differentiates(solve: Callable[..., Any], theta: Any, x: Any, name: str, rng: np.random.Generator) -> None:
    """Implicit derivatives are differences of solutions, transposes of each other, and alike under vmap."""

    def value(theta: Any) -> Any:
        return solve(theta).value

    # Small: a step must stay positive, and no kink be crossed.
    tangent = [jnp.asarray(rng.normal(size=np.shape(t))) * (1e-2 + abs(t)) for t in theta]
    weights = unpacker(x)(rng.normal(size=pack(x).size))
    forward = jax.jit(lambda t, d: jax.jvp(value, (t,), (d,))[1])
    moved = pack(forward(theta, tangent))
    ahead, behind = (pack(value([t + s * STEP * d for t, d in zip(theta, tangent, strict=True)])) for s in (1, -1))
    want = (ahead - behind) / (2 * STEP)
    np.testing.assert_allclose(moved, want, rtol=1e-5, atol=1e-6, err_msg=f"{name}: forward derivative")
    pulled = jax.jit(lambda t, w: jax.vjp(value, t)[1](w)[0])(theta, weights)
    np.testing.assert_allclose(
        pack(pulled) @ pack(tangent), pack(weights) @ moved, rtol=1e-8, atol=1e-9, err_msg=f"{name}: reverse derivative"
    )
    lanes = jax.jit(jax.vmap(forward))(*jax.tree.map(lambda t: jnp.stack([t, t]), (theta, tangent)))
    for k in range(2):
        lane = pack(jax.tree.map(lambda u, k=k: u[k], lanes))
        np.testing.assert_allclose(lane, moved, rtol=1e-8, atol=1e-9, err_msg=f"{name}: under vmap")
