"""compat.jaxopt against jaxopt: the same values and derivatives off kinks, better ones at them, the same calls."""

import dataclasses
import functools
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.compat import jaxopt as ours
from nsimplicit.compat.jaxopt import implicit_diff

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says on import that it is no longer maintained
    import jaxopt as theirs

close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8)
RNG = np.random.default_rng(0)
X, Y = jnp.array(RNG.normal(size=(20, 5))), jnp.array(RNG.normal(size=20))
V = jnp.array([1.3, -0.4, 0.2, -2.0])  # on no kink of any row below
A = jnp.array(RNG.normal(size=(2, 4)))
SPD = X.T @ X + jnp.eye(5)
SQUARE = X[:5] + 3 * jnp.eye(5)

PROXES = {
    "prox_none": [None],
    "prox_lasso": [0.3, jnp.array([0.1, 0.2, 0.3, 0.4])],
    "prox_non_negative_lasso": [0.3],
    "prox_elastic_net": [(0.3, 2.0), (jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.ones(4))],
    "prox_group_lasso": [0.3, 9.0],
    "prox_ridge": [0.3],
    "prox_non_negative_ridge": [0.3],
}
PROJECTIONS = {
    "projection_non_negative": [None],
    "projection_box": [(-0.5, 1.0), (jnp.zeros(4), jnp.array([1.0, 2.0, 3.0, 4.0]))],
    "projection_hypercube": [1.0, 0.7],
    "projection_simplex": [1.0, 2.5],
    "projection_l1_sphere": [1.0, 2.5],
    "projection_l1_ball": [1.0, 9.0],
    "projection_l2_sphere": [1.0, 2.5],
    "projection_l2_ball": [1.0, 9.0],
    "projection_linf_ball": [1.0, 9.0],
    "projection_hyperplane": [(A[0], 0.7)],
    "projection_halfspace": [(A[0], -0.7), (A[0], 9.0)],
    "projection_affine_set": [(A, jnp.array([0.3, -0.2]))],
}


@pytest.fixture(autouse=True)
def already_told(monkeypatch):
    """No test but one sees the warning that is shown once."""
    monkeypatch.setattr(implicit_diff, "_told", ["told"])


def rows(table):
    return [pytest.param(name, hyper, id=f"{name}-{k}") for name, row in table.items() for k, hyper in enumerate(row)]


def agree(mine, other, *args):
    """Values and Jacobians, each in one compilation."""
    numbers = tuple(i for i, a in enumerate(args) if a is not None)
    both = [jax.jit(lambda *a, f=f: (f(*a), jax.jacrev(f, numbers)(*a)))(*args) for f in (mine, other)]
    jax.tree.map(close, *both)


@pytest.mark.parametrize("name, hyper", rows(PROXES))
def test_prox_agrees(name, hyper):
    agree(getattr(ours.prox, name), getattr(theirs.prox, name), V, hyper, 0.9)


@pytest.mark.parametrize("name, hyper", rows(PROJECTIONS))
def test_projection_agrees(name, hyper):
    agree(getattr(ours.projection, name), getattr(theirs.projection, name), V, hyper)


def test_sparse_simplex_agrees():
    agree(*(lambda x, v, m=m: m.projection.projection_sparse_simplex(x, 2, value=v) for m in (ours, theirs)), V, 1.5)


def test_box_section_agrees():
    """jaxopt's is found by bisection, to 1e-5."""
    hyper = (-jnp.ones(4), jnp.ones(4), jnp.array([1.0, 2.0, 0.5, 1.0]), 0.7)
    mine, other = (m.projection.projection_box_section(V, hyper) for m in (ours, theirs))
    np.testing.assert_allclose(mine, other, atol=2e-5)
    close(mine @ hyper[2], 0.7)
    with pytest.raises(ValueError, match="misses the box"):
        ours.projection.projection_box_section(V, (*hyper[:3], 9.0), check_feasible=True)


@pytest.mark.slow
def test_polyhedra_agree():
    """jaxopt's is found by ADMM, to 1e-3; a row of zeros says nothing, there and here."""
    hyper = (jnp.array([[1.0, 1.0, 1.0, 0.0], [0.0] * 4]), jnp.array([0.5, 0.0]), A, jnp.array([0.3, -0.2]))
    mine, other = (m.projection.projection_polyhedron(V, hyper, check_feasible=False) for m in (ours, theirs))
    np.testing.assert_allclose(mine, other, atol=5e-3)
    close(mine[:3].sum(), 0.5)
    empty = (None, None, jnp.array([[1.0], [-1.0]]), jnp.array([-1.0, -1.0]))
    with pytest.raises(ValueError, match="no x satisfies"):
        ours.projection.projection_polyhedron(jnp.zeros(1), empty)


@pytest.mark.slow
def test_transport_plans_agree():
    """jaxopt's are found by L-BFGS, to 1e-3."""
    marginals = jnp.array([0.2, 0.3, 0.5]), jnp.array([0.4, 0.3, 0.3])
    mine, other = (jax.jit(m.projection.projection_transport)(X[:3, :3], marginals) for m in (ours, theirs))
    np.testing.assert_allclose(mine, other, atol=2e-3)
    close(mine.sum(0), marginals[1])
    close(ours.projection.projection_birkhoff(X[:3, :3]).sum(1), 1)
    mine, other = (jax.jit(m.projection.kl_projection_transport)(X[:3, :3], marginals) for m in (ours, theirs))
    np.testing.assert_allclose(mine, other, atol=2e-3)
    close(mine.sum(0), marginals[1])
    doubly = jax.jit(ours.projection.kl_projection_birkhoff)
    close(doubly(X[:3, :3]).sum(1), 1)
    close(jnp.log(doubly(X[:3, :3])) - X[:3, :3], jnp.log(doubly(X[:3, :3] + 1)) - X[:3, :3])  # constants do not count
    slope = jax.jacrev(doubly)(X[:3, :3])  # the sums stay
    np.testing.assert_allclose(slope.sum(0), 0, atol=1e-9)


@pytest.mark.parametrize("module", ["prox", "projection", "linear_solve", "implicit_diff", "objective"])
def test_names_and_parameters_are_theirs(module):
    mine, other = getattr(ours, module), getattr(theirs, module)
    own = {"make_kkt_optimality_fun", "CompositeLinearFunction", "LinearOperator"}  # not on jaxopt's own menu
    for name in set(mine.__all__) - own:
        assert hasattr(other, name), name
        if inspect.isfunction(getattr(other, name)):
            wanted = list(inspect.signature(getattr(other, name)).parameters)
            got = list(inspect.signature(getattr(mine, name)).parameters)
            assert got[1 : len(wanted)] == wanted[1:] or "kwargs" in wanted, name


def test_every_function_has_a_row():
    assert set(PROXES) | {"make_prox_from_projection"} == set(ours.prox.__all__)
    own = {f"projection_{name}" for name in ("sparse_simplex", "box_section", "polyhedron", "transport", "birkhoff")}
    own |= {"kl_projection_transport", "kl_projection_birkhoff"}
    assert set(PROJECTIONS) | own == set(ours.projection.__all__)


def test_hyperparameters_may_be_left_out_and_named():
    x = jnp.array([3.0, -0.5])
    assert ours.prox.prox_lasso(x).tolist() == [2.0, 0.0]
    assert ours.prox.prox_lasso(x, l1reg=0.25, scaling=2.0).tolist() == [2.5, 0.0]
    close(ours.prox.prox_elastic_net(x), theirs.prox.prox_elastic_net(x))
    with pytest.raises(TypeError, match="unexpected"):
        ours.prox.prox_lasso(x, weight=1.0)


TREE = {"a": V, "b": (V[:2], jnp.array(0.3))}


@pytest.mark.parametrize("name", ["prox_lasso", "prox_group_lasso", "prox_ridge"])
def test_prox_of_trees(name):
    jax.tree.map(close, getattr(ours.prox, name)(TREE, 0.3), getattr(theirs.prox, name)(TREE, 0.3))


@pytest.mark.parametrize("name, hyper", [("l2_ball", 1.0), ("l2_sphere", 2.0), ("hyperplane", (TREE, 0.7))])
def test_projection_of_trees(name, hyper):
    mine, other = (getattr(m.projection, f"projection_{name}")(TREE, hyper) for m in (ours, theirs))
    jax.tree.map(close, mine, other)


KINKS = {  # what jaxopt gives there, and what is given here: the same but where that is nan or wrong
    "lasso of weight 0": (lambda m: lambda x: m.prox.prox_lasso(x, 0.0), 0.0, 1.0),
    "group lasso at 0": (lambda m: lambda x: m.prox.prox_group_lasso(x[None], 1.0)[0], np.nan, 0.0),
    "ball at its center": (lambda m: lambda x: m.projection.projection_l2_ball(x[None], 1.0)[0], np.nan, 1.0),
    "x >= 0 at 0": (lambda m: m.projection.projection_non_negative, 0.0, 0.0),
    "ridge of x >= 0 at 0": (lambda m: m.prox.prox_non_negative_ridge, 0.0, 0.0),
    "box at its bound": (lambda m: m.projection.projection_hypercube, 0.5, 0.5),
    "lasso at the threshold": (lambda m: lambda x: m.prox.prox_lasso(x + 1, 1.0), 0.0, 0.0),
}


@pytest.mark.parametrize("case", KINKS)
def test_derivatives_at_kinks(case):
    make, jaxopt_gives, we_give = KINKS[case]
    assert np.array_equal(jax.grad(make(theirs))(0.0), jaxopt_gives, equal_nan=True)
    assert float(jax.grad(make(ours))(0.0)) == we_give


@pytest.mark.parametrize("name, x", [("l1_ball", jnp.array([0.6, -0.4])), ("l2_ball", jnp.array([0.6, -0.8]))])
def test_on_the_sphere_of_a_ball(name, x):
    for m in (ours, theirs):
        close(jax.jit(jax.jacrev(getattr(m.projection, f"projection_{name}")))(x, 1.0), np.eye(2))


def test_a_simplex_far_away():
    """jaxopt's test: the sum of the projection of numbers of size 1e9 in float32 is not lost."""
    x = 1e9 * jnp.array(RNG.normal(size=50), jnp.float32)
    jac = jax.jit(jax.jacrev(ours.projection.projection_simplex))(x)
    assert float(ours.projection.projection_simplex(x).sum()) == 1.0 and np.isfinite(jac).all()


@pytest.mark.parametrize("name", ours.linear_solve.__all__)
def test_linear_solvers(name):
    solve, b = getattr(ours.linear_solve, name), Y[:5]
    M = SPD if name in ("solve_cg", "solve_cholesky") else SQUARE

    def everything(M, b):
        def quadratic(M, b, **options):
            return solve(lambda v: M @ v, b, **options)

        started = quadratic(M, b, init=jnp.ones(5), maxiter=50, tol=1e-10)
        slope = jax.grad(lambda M, b: quadratic(M, b).sum(), (0, 1))(M, b)
        tree = solve(lambda v: {"x": M @ v["x"]}, {"x": b})["x"]
        return quadratic(M, b), started, tree, quadratic(M, b, ridge=0.5), slope

    x, started, tree, shifted, slope = jax.jit(everything)(M, b)
    expected = np.linalg.solve(M, b)
    for got in (x, started, tree):
        close(got, expected)
    on_normal = name == "solve_normal_cg"
    close(shifted, np.linalg.solve((M.T @ M if on_normal else M) + 0.5 * np.eye(5), M.T @ b if on_normal else b))
    back = np.linalg.solve(M.T, np.ones(5))
    np.testing.assert_allclose(slope[1], back, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slope[0], -np.outer(back, expected), rtol=1e-4, atol=1e-6)


def test_normal_cg_of_a_rectangle():
    x = ours.linear_solve.solve_normal_cg(lambda v: A @ v, jnp.ones(2), init=jnp.zeros(4))
    close(x, jnp.linalg.lstsq(A, jnp.ones(2))[0])
    with pytest.raises(TypeError, match="init=jnp.zeros"):
        ours.linear_solve.solve_normal_cg(lambda v: A @ v, jnp.ones(2))


def ridge_solver(init, lam, X, y):
    return jnp.linalg.solve(X.T @ X / len(y) + lam * jnp.eye(X.shape[1]), X.T @ y / len(y))


def ridge_optimality(x, lam, X, y):
    return X.T @ (X @ x - y) / len(y) + lam * x


GRAM = np.asarray(X.T @ X) / 20 + 0.3 * np.eye(5)
RIDGE_SLOPE = -np.linalg.solve(GRAM, np.linalg.solve(GRAM, np.asarray(X.T @ Y) / 20))


@pytest.mark.parametrize(
    "solve",
    [
        None,
        ours.linear_solve.solve_cg,
        functools.partial(ours.linear_solve.solve_gmres, tol=1e-12, maxiter=10),
        theirs.linear_solve.solve_lu,
        lambda matvec, b: jax.scipy.sparse.linalg.cg(matvec, b, tol=1e-12)[0],
    ],
    ids=["default", "cg", "partial", "jaxopt", "lambda"],
)
def test_custom_root(solve):
    mine = ours.implicit_diff.custom_root(ridge_optimality, solve=solve, on_failure="nan")(ridge_solver)
    slopes = jax.jit(
        lambda lam: (
            jax.jacrev(mine, 1)(None, lam, X, Y),
            jax.jacfwd(lambda lam: mine(None, y=Y, X=X, lam=lam))(lam),
        )
    )(0.3)
    for slope in slopes:
        close(slope, RIDGE_SLOPE)


@pytest.mark.slow
def test_aux_and_a_reference_signature():
    def solver(init, *args, **kwargs):
        return ridge_solver(init, *args, **kwargs), {"seen": 3}

    for reference in (ridge_optimality, inspect.signature(ridge_optimality)):
        decorate = ours.implicit_diff.custom_root(
            ridge_optimality, has_aux=True, reference_signature=reference, on_failure="nan"
        )
        jac, aux = jax.jacrev(lambda lam, d=decorate: d(solver)(None, lam, X=X, y=Y), has_aux=True)(0.3)
        close(jac, RIDGE_SLOPE)
        assert aux == {"seen": 3}


def test_an_equation_that_says_less_than_it_takes():
    """With ``functools.wraps`` an ``f(x, *args)`` shows the names of another function, and is called by them."""
    disguised = functools.wraps(ridge_optimality)(lambda x, *args: x - ridge_optimality(x, *args))
    solver = ours.implicit_diff.custom_fixed_point(disguised, on_failure="nan")(ridge_solver)
    close(jax.jacrev(lambda lam: solver(None, X=X, lam=lam, y=Y))(0.3), RIDGE_SLOPE)


@pytest.mark.slow
def test_root_products():
    sol = ridge_solver(None, 0.3, X, Y)
    moves = (1.0, jnp.zeros_like(X), jnp.zeros_like(Y))
    close(ours.implicit_diff.root_jvp(ridge_optimality, sol, (0.3, X, Y), moves, on_failure="nan"), RIDGE_SLOPE)
    cotangent = jnp.arange(5.0)
    mine, other = (
        m.implicit_diff.root_vjp(ridge_optimality, sol, (0.3, X, Y), cotangent, solve=m.linear_solve.solve_lu)
        for m in (ours, theirs)
    )
    jax.tree.map(close, mine, other)


@pytest.mark.slow
def test_kkt_of_a_quadratic_program():
    def optimum(b):
        matrix = jnp.block([[SPD, jnp.ones((5, 1))], [jnp.ones((1, 5)), jnp.zeros((1, 1))]])
        z = jnp.linalg.solve(matrix, jnp.append(Y[:5], b))
        return z[:5], z[5:], None

    kkt = ours.implicit_diff.make_kkt_optimality_fun(
        lambda x, q: 0.5 * x @ SPD @ x - q @ x, lambda x, b: jnp.sum(x)[None] - b
    )
    decorate = ours.implicit_diff.custom_root(lambda p, b: kkt(p, Y[:5], b), on_failure="nan")
    decorated = decorate(lambda init, b: optimum(b))
    close(jax.jacrev(lambda b: decorated(None, b)[0])(1.0), jax.jacrev(lambda b: optimum(b)[0])(1.0))
    both = ours.implicit_diff.make_kkt_optimality_fun(lambda x, q: q @ x, None, lambda x, h: x - h)
    residual = both((jnp.ones(2), None, jnp.array([2.0, 3.0])), jnp.zeros(2), None, jnp.zeros(2))
    assert residual.primal.tolist() == [2.0, 3.0] and residual.dual_ineq.tolist() == [2.0, 3.0]
    assert residual.dual_eq is None


def singular(x, t):
    return jnp.stack([x[0] + x[1] - t, x[0] + x[1] - t])


def slope_of_singular(**options):
    solver = ours.implicit_diff.custom_root(singular, **options)(lambda init, t: jnp.array([t, 0.0]))
    return jax.jit(jax.jacrev(lambda t: solver(None, t)))(1.0)


def test_a_singular_system_gives_a_number_and_one_warning(monkeypatch):
    monkeypatch.setattr(implicit_diff, "_told", [])
    with pytest.warns(UserWarning, match="on_failure='nan'") as seen:
        close(slope_of_singular(), [0.5, 0.5])
        ours.implicit_diff.custom_root(singular)
    assert len(seen) == 1
    other = theirs.implicit_diff.custom_root(singular)(lambda init, t: jnp.array([t, 0.0]))
    close(jax.jacrev(lambda t: other(None, t))(1.0), [0.5, 0.5], rtol=1e-4)


def test_a_choice_is_not_warned_about(monkeypatch):
    monkeypatch.setattr(implicit_diff, "_told", [])
    assert np.isnan(slope_of_singular(on_failure="nan")).all()
    assert slope_of_singular(on_failure="drop").tolist() == [0.0, 0.0]
    with pytest.raises(nsi.InputError, match="is not one of"):
        slope_of_singular(on_failure="zero")


@pytest.mark.slow
def test_conjugate_gradients_on_a_matrix_that_is_not_symmetric():
    """jaxopt returns what they give; here the residual tells."""
    M = jnp.array([[1.0, 5.0], [-5.0, 1.0]])

    def slope(m, solve):
        solver = m.implicit_diff.custom_root(lambda x, t: M @ x - t, solve=solve)(
            lambda init, t: jnp.linalg.solve(M, t)
        )
        return jax.jacrev(lambda t: solver(None, t))(jnp.array([1.0, 2.0]))

    for solve in (ours.linear_solve.solve_cg, lambda matvec, b: jax.scipy.sparse.linalg.cg(matvec, b, maxiter=50)[0]):
        close(slope(ours, solve), jnp.linalg.inv(M))
    assert not np.allclose(slope(theirs, theirs.linear_solve.solve_cg), jnp.linalg.inv(M), rtol=0.1)


def test_a_ridge_is_kept():
    solve = functools.partial(ours.linear_solve.solve_lu, ridge=1.0)
    solver = ours.implicit_diff.custom_root(lambda x, t: SPD @ x - t, solve=solve)(
        lambda init, t: jnp.linalg.solve(SPD, t)
    )
    close(jax.jacrev(solver, 1)(None, Y[:5]), jnp.linalg.inv(SPD + jnp.eye(5)))


LASSO = dict(tol=1e-11, maxiter=3000)
PLAIN = dict(stepsize=0.3, acceleration=False)
SOLVERS = {
    "prox": lambda m, **o: (
        m.ProximalGradient(m.objective.least_squares, m.prox.prox_lasso, **LASSO, **o),
        (jnp.zeros(5), 0.1),
    ),
    "projected": lambda m, **o: (
        m.ProjectedGradient(
            m.objective.least_squares, m.projection.projection_l2_ball, stepsize=0.3, acceleration=False, **LASSO, **o
        ),
        (jnp.zeros(5), 0.4),
    ),
    "blocks": lambda m, **o: (
        m.BlockCoordinateDescent(m.objective.least_squares, m.prox.prox_lasso, **LASSO, **o),
        (jnp.zeros(5), 0.1),
    ),
}
MAPS = {"picard": "FixedPointIteration", "anderson": "AndersonAcceleration"}


def contraction(x, t, b):
    return jnp.tanh(0.5 * x + t) + b


def solver_and_call(m, name, **options):
    options = {**options, "on_failure": "nan"} if m is ours else options  # compiles faster
    if name in MAPS:
        solver = getattr(m, MAPS[name])(contraction, tol=1e-11, maxiter=100, **options)
        return solver, lambda t: solver.run(jnp.zeros(3), t, b=jnp.arange(3.0)), 1.0
    solver, (init, hyper) = SOLVERS[name](m, **options)
    return solver, lambda hyper: solver.run(init, hyper, data=(X, Y)), hyper


def solved(run, *modes):
    """The step that a run ends with, and derivatives of its parameters, in one compilation."""
    return jax.jit(lambda t: (run(t), *(mode(lambda t: run(t).params)(t) for mode in modes)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SOLVERS, *MAPS])
def test_solvers_agree(name):
    (mine, run, theta), (_, other, _) = (solver_and_call(m, name) for m in (ours, theirs))
    modes = (jax.jacrev, jax.jacfwd) if name in ("prox", "picard") else (jax.jacrev,)
    step, *slopes = solved(run, *modes)(theta)
    expected, slope = solved(other, jax.jacrev)(theta)
    loose = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    loose(step.params, expected.params)
    for got in slopes:
        jax.tree.map(loose, got, slope)
    assert step.state.error <= mine.tol and 1 < step.state.iter_num < mine.maxiter
    rest = (theta, (X, Y)) if name in SOLVERS else (theta, jnp.arange(3.0))
    assert mine.l2_optimality_error(step.params, *rest) < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prox", "anderson"])
def test_unrolled_derivatives(name):
    _, run, theta = solver_and_call(ours, name)
    solver, unrolled, _ = solver_and_call(ours, name, implicit_diff=False)
    _, expected = solved(run, jax.jacrev)(theta)
    step, *slopes = solved(unrolled, jax.jacrev, jax.jacfwd)(theta)
    for slope in slopes:
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)
    assert step.state.error <= solver.tol


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prox"])
def test_a_loop_of_updates_is_a_run(name):
    solver, run, theta = solver_and_call(ours, name)
    args, kwargs = ((theta, (X, Y)), {}) if name in SOLVERS else ((theta,), {"b": jnp.arange(3.0)})
    params = jnp.zeros(5 if name in SOLVERS else 3)
    state = solver.init_state(params, *args, **kwargs)
    for _ in range(3):
        params, state = solver.update(params, state, *args, **kwargs)
    short = type(solver)(**{**vars_of(solver), "maxiter": 3}).run(jnp.zeros_like(params), *args, **kwargs)
    close(params, short.params)
    assert int(short.state.iter_num) == 3
    none = type(solver)(**{**vars_of(solver), "maxiter": 0}).run(jnp.ones_like(params), *args, **kwargs)
    close(none.params, jnp.ones_like(params))


def vars_of(solver):
    return {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}


@pytest.mark.slow
def test_functions_that_cannot_be_traced():
    def T(x, t):
        return jnp.asarray(np.tanh(0.5 * np.asarray(x)) + np.asarray(t))

    for solver in (ours.FixedPointIteration, ours.AndersonAcceleration):
        params, state = solver(T, jit=False, implicit_diff=False).run(jnp.zeros(2), jnp.ones(2))
        assert state.error <= 1e-5
        close(params, np.tanh(0.5 * np.asarray(params)) + 1, rtol=1e-4)


@pytest.mark.slow
def test_values_with_gradients_and_auxiliary_output():
    def fun(x, target):
        return (0.5 * jnp.sum((x - target) ** 2), {"calls": 1}), x - target

    solver = ours.ProximalGradient(fun, ours.prox.prox_lasso, value_and_grad=True, has_aux=True, tol=1e-10)
    params, state = solver.run(jnp.zeros(2), 1.0, jnp.array([3.0, 0.5]))
    close(params, [2.0, 0.0])
    assert state.aux == {"calls": 1}
    close(jax.jacrev(lambda w: solver.run(jnp.zeros(2), w, jnp.array([3.0, 0.5])).params)(1.0), [-1.0, 0.0])
    plain = ours.ProximalGradient(lambda x, t: fun(x, t)[0], has_aux=True, stepsize=lambda k: 1 / (1 + k))
    assert plain.run(jnp.zeros(2), None, jnp.ones(2)).state.aux == {"calls": 1}
    with_aux = ours.FixedPointIteration(lambda x: (0.5 * x + 1, 10 * x), has_aux=True)
    close(with_aux.run(0.0).state.aux, 20.0, rtol=1e-3)


def test_closures_are_differentiated():
    """jaxopt raises UnexpectedTracerError."""

    def solve(t):
        return (
            ours.FixedPointIteration(lambda x: jnp.cos(x) * t, tol=1e-12, maxiter=500, on_failure="nan").run(1.0).params
        )

    x, slope = float(solve(0.8)), float(jax.grad(solve)(0.8))
    close(slope, np.cos(x) / (1 + 0.8 * np.sin(x)))


@pytest.mark.slow
def test_structure_reaches_the_linear_solver():
    """More than 64 unknowns: two Jacobians that are known apart are solved for without a matrix."""
    wide = jnp.array(RNG.normal(size=(30, 100)))
    solver = ours.ProximalGradient(ours.objective.least_squares, ours.prox.prox_lasso, tol=1e-9, maxiter=5000)
    run = functools.partial(solver.run, jnp.zeros(100), data=(wide, jnp.ones(30)))
    (params, _), jac = solved(run, jax.jacrev)(0.05)
    support = np.flatnonzero(params)
    B = wide[:, support]
    exact = np.zeros(100)
    exact[support] = -jnp.linalg.solve(B.T @ B / 30, jnp.sign(params[support]))
    np.testing.assert_allclose(jac, exact, rtol=1e-5, atol=1e-6)


OBJECTIVES = {
    "least_squares": (jnp.ones(5), (X, Y)),
    "ridge_regression": (jnp.ones(5), 0.3, (X, Y)),
    "binary_logreg": (jnp.ones(5), (X, (Y > 0).astype(int))),
    "multiclass_logreg": (X[:5, :3], (X, jnp.arange(20) % 3)),
    "multiclass_logreg_with_intercept": ((X[:5, :3], jnp.ones(3)), (X, jnp.arange(20) % 3)),
    "l2_multiclass_logreg": (X[:5, :3], 0.3, (X, jnp.arange(20) % 3)),
    "l2_multiclass_logreg_with_intercept": ((X[:5, :3], jnp.ones(3)), 0.3, (X, jnp.arange(20) % 3)),
    "multiclass_linear_svm_dual": (X[:, :3], 2.0, (X, jax.nn.one_hot(jnp.arange(20) % 3, 3))),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(name):
    args = OBJECTIVES[name]
    mine, other = (jax.jit(jax.value_and_grad(getattr(m.objective, name)))(*args) for m in (ours, theirs))
    jax.tree.map(close, mine, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["multiclass_logreg", "multiclass_linear_svm_dual"])
def test_block_descent_of_composites(name):
    init, *args = OBJECTIVES[name]
    prox = ours.prox.make_prox_from_projection(ours.projection.projection_simplex)
    prox = prox if "svm" in name else ours.prox.prox_ridge
    solver = ours.BlockCoordinateDescent(getattr(ours.objective, name), prox, tol=1e-9, maxiter=2000)
    params, state = solver.run(init, None, *args)
    assert state.error <= 1e-9
    assert solver.l2_optimality_error(params, None, *args) < 1e-6


def test_mistakes():
    with pytest.raises(TypeError, match="unexpected keyword"):
        ours.FixedPointIteration(contraction, tolerance=1e-3)
    with pytest.raises(AttributeError, match="optax.lbfgs"):
        _ = ours.LBFGS
    with pytest.raises(AttributeError, match="make_linop"):
        ours.BlockCoordinateDescent(lambda x: x, ours.prox.prox_lasso)
    with pytest.raises(nsi.InputError, match="at least 2"):
        ours.AndersonAcceleration(contraction, history_size=1)


def test_jaxopt_is_not_imported():
    code = "import sys; from nsimplicit.compat import jaxopt; assert 'jaxopt' not in sys.modules"
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": "", "PYTHONPATH": root}, capture_output=True)
    assert done.returncode == 0, done.stderr
