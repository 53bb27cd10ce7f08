"""Linear solvers on kinds of systems, against SciPy's own: whoever fails says so, and fails no more often than SciPy.

The judge is the guard's own measure. One compiled program per solver runs all systems as lanes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg as sla

import nsimplicit as nsi
from nsimplicit.implicit.guard import check
from nsimplicit.implicit.guards import Off, Solved
from nsimplicit.linear_solvers import CG, GMRES, Auto, BiCGStab, Dense, Fallback, FixedPointAdjoint, NormalCG, Operator
from nsimplicit.linear_solvers.operator import accepted_error, backward_error

N = 20


def systems():
    """name: matrix and right-hand side."""
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(N, N)))[0] for _ in range(2))
    spread = np.geomspace(0.1, 1, N)
    b = rng.normal(size=N)
    definite, general = (U * spread) @ U.T, (U * spread) @ V
    indefinite = (U * (spread * (-1.0) ** np.arange(N))) @ U.T
    flat = spread.copy()
    flat[-3:] = 0
    singular = (U * flat) @ V
    scale = 10.0 ** rng.uniform(-3, 3, N)
    return {
        "definite": (definite, b),
        "nonsymmetric": (general, b),
        "contraction": (np.eye(N) - 0.6 * U, b),
        "indefinite": (indefinite, b),
        "badly scaled": (scale[:, None] * (np.eye(N) + 0.3 * general), b),
        "singular, consistent": (singular, singular @ b),
        "singular, inconsistent": (singular, b),
    }


SYSTEMS = systems()
RTOL = np.finfo(float).eps ** 0.75
SCIPY = {
    CG: functools.partial(sla.cg, maxiter=1000),
    GMRES: functools.partial(sla.gmres, restart=N, maxiter=20),
    BiCGStab: functools.partial(sla.bicgstab, maxiter=500),
}
SOLVERS = [
    Dense(),
    CG(),
    NormalCG(),
    GMRES(),
    BiCGStab(),
    FixedPointAdjoint(nsi.solvers.Anderson()),
    Auto(),
    Fallback(BiCGStab(), GMRES(restart=20)),
]


@functools.cache
def answers(solver):
    """Per system: x, and whether the default guard fails it."""

    def lane(M, b):
        operator = Operator(lambda v: M @ v)
        solution = solver.solve(operator, b)
        return solution.value, Solved().failed(check(Off(), operator, b, solution).evidence)

    M, b = (np.stack(x) for x in zip(*SYSTEMS.values(), strict=True))
    out = jax.jit(jax.vmap(lane))(M, b)
    return {name: tuple(np.asarray(x[i]) for x in out) for i, name in enumerate(SYSTEMS)}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_says_the_truth(solver, name):
    M, b = SYSTEMS[name]
    x, failed = answers(solver)[name]
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged answer may be 1e200
        residual = np.linalg.norm(M @ x - b)
    if name == "singular, inconsistent":
        assert failed
    elif not failed:
        assert residual <= 1e-10 * (np.linalg.norm(M, 2) * np.linalg.norm(x) + np.linalg.norm(b))
        if name != "singular, consistent":
            expected = np.linalg.solve(M, b)
            assert np.linalg.norm(x - expected) <= 1e-10 * np.linalg.cond(M) * np.linalg.norm(expected)
    else:
        assert not residual <= RTOL * np.linalg.norm(b) or (isinstance(solver, Dense | Auto) and "consistent" in name)


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("solver", [CG(), GMRES(), BiCGStab()], ids=lambda s: type(s).__name__)
def test_solves_what_scipy_solves(solver, name):
    M, b = SYSTEMS[name]
    x, info = SCIPY[type(solver)](M, b, rtol=RTOL, atol=0.0)
    if info == 0 and np.linalg.norm(M @ x - b) <= 10 * RTOL * np.linalg.norm(b):
        assert not answers(solver)[name][1]


def test_direct_and_robust_solvers_solve_every_regular_system():
    regular = [name for name in SYSTEMS if "singular" not in name]
    for solver in (Dense(), Auto(), GMRES()):
        assert not any(answers(solver)[name][1] for name in regular), solver
    assert all(answers(Dense())[name][1] for name in SYSTEMS if "singular" in name)
    # least squares: what SciPy's lsqr gives
    x, expected = (
        answers(NormalCG())["singular, inconsistent"][0],
        sla.lsqr(*SYSTEMS["singular, inconsistent"], atol=1e-14, btol=1e-14)[0],
    )
    np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_what_bicgstab_says_of_its_residual_holds():
    """Its own residual can be small where that of its answer is not; the peak it came down from tells."""

    def lane(M, b):
        operator = Operator(lambda v: M @ v)
        solution = BiCGStab().solve(operator, b)
        return solution.followed / jnp.linalg.norm(b), backward_error(operator, b, solution)

    most = accepted_error(np.finfo(np.float32).eps)
    for n, size in ((20, 1.5), (40, 0.9), (60, 1.1)):
        rng = np.random.default_rng(n)
        M, b = np.eye(n) + size * rng.normal(size=(400, n, n)) / np.sqrt(n), rng.normal(size=(400, n))
        said, true = map(np.asarray, jax.jit(jax.vmap(lane))(M.astype(np.float32), b.astype(np.float32)))
        assert np.all(true[said <= most] <= most) and np.mean(said <= most) > 0.3


@pytest.mark.parametrize("solver", [nsi.solvers.Picard(), nsi.solvers.Anderson(), nsi.solvers.Nesterov()])
def test_the_adjoint_as_a_fixed_point_has_no_units(solver):
    M = np.eye(N) - 0.3 * np.random.default_rng(0).normal(size=(N, N)) / np.sqrt(N)
    b = np.random.default_rng(1).normal(size=N)

    def lane(scale):
        solution = FixedPointAdjoint(solver).solve(Operator(lambda v: M @ v), scale * b)
        return solution.value / scale, solution.num_steps

    x, steps = jax.jit(jax.vmap(lane))(2.0 ** np.array([-80, 0, 80]))
    np.testing.assert_array_equal(steps, steps[1])
    np.testing.assert_allclose(x, [np.linalg.solve(M, b)] * 3, rtol=1e-10, atol=1e-11)


def test_a_symmetric_solver_on_a_nonsymmetric_equation_meets_the_guard():
    """``solve`` is called with A, and with its transpose in reverse mode; conjugate gradients are right for neither."""
    M, b = SYSTEMS["nonsymmetric"]
    called = []

    def cg(matvec, b):
        called.append(jax.vmap(matvec)(jnp.eye(N)).T)
        return jax.scipy.sparse.linalg.cg(matvec, b, tol=1e-12, maxiter=200)[0]

    def solution(solve, M):
        root = nsi.custom_root(lambda x, b: M @ x - b, solve=solve, init_argnum=None)
        return root(lambda b: jnp.linalg.solve(M, b))

    x = solution(cg, M)
    assert np.isnan(jax.jacrev(x)(b)).any() and np.isnan(jax.jvp(x, (b,), (b,))[1]).all()
    symmetric = SYSTEMS["definite"][0]
    np.testing.assert_allclose(jax.jacrev(solution(cg, symmetric))(b), np.linalg.inv(symmetric), atol=1e-8)
    matrices = [np.asarray(m) for m in called if not isinstance(m, jax.core.Tracer)]
    assert not matrices  # traced under custom_linear_solve
    seen = []

    def dense(matvec, b):
        A = jax.vmap(matvec)(jnp.eye(N)).T
        jax.debug.callback(lambda A: seen.append(A), A)
        return jnp.linalg.solve(A, b)

    y = solution(dense, M)
    jax.jvp(y, (b,), (b,))
    jax.vjp(y, b)[1](b)
    jax.effects_barrier()
    np.testing.assert_allclose(seen[0], M, atol=1e-15)
    np.testing.assert_allclose(seen[-1], M.T, atol=1e-15)
