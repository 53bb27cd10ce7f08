"""The decorators as a drop-in for jaxopt's: auxiliary output, foreign solvers, linear solvers, counts, errors."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import Lasso, Ridge

import nsimplicit as nsi
from nsimplicit import InputError, derivatives, linear_solvers
from tests.cases.implicit import ROWS, A, B

Answer = collections.namedtuple("Answer", "x state count")


def square(x, a):
    return x**2 - a


def root_of(a):
    return np.sqrt(np.asarray(a))


@pytest.mark.parametrize(
    "pack",
    [lambda x, *aux: (x, *aux), lambda x, *aux: [x, *aux], lambda x, *aux: Answer(x, *aux)],
    ids=["tuple", "list", "namedtuple"],
)
def test_aux_keeps_its_container_and_has_no_derivative(pack):
    @nsi.custom_root(square, has_aux=True, init_argnum=None)
    def solve(a):
        return pack(jnp.sqrt(a), {"scaled": 3 * a, "word": None}, 7)

    out, moved = jax.jvp(solve, (4.0,), (1.0,))
    assert type(out) is type(moved) is type(pack(0.0, 0.0, 0.0))
    assert (out[0], out[1]["scaled"], out[2]) == (2.0, 12.0, 7)
    assert (moved[0], moved[1]["scaled"]) == (0.25, 0.0)
    assert jax.grad(lambda a: solve(a)[0] + solve(a)[1]["scaled"])(4.0) == 0.25


def test_drop_in_positional_order():
    """custom_root(optimality_fun, has_aux, solve, reference_signature), as jaxopt has it."""

    def reference(init, a):
        """Names the arguments."""

    calls = []

    def solve(matvec, b):
        calls.append(b.shape)
        return b / matvec(jnp.ones_like(b))

    decorated = nsi.custom_root(square, True, solve, reference)(lambda *args, **kw: (root_of(kw["a"]), "aux"))
    assert jax.grad(lambda a: decorated(init=1.0, a=a)[0])(4.0) == 0.25
    assert calls
    decorated = nsi.custom_fixed_point(lambda x, a: (x + a / x) / 2, False, solve, None)(lambda x0, a: root_of(a))
    assert jax.grad(decorated, 1)(1.0, 4.0) == 0.25


def test_solve_is_called_with_the_matrix_and_with_its_transpose():
    seen = []

    def solve(matvec, b):
        matrix = jax.vmap(matvec)(jnp.eye(3)).T
        jax.debug.callback(seen.append, matrix)
        return jnp.linalg.solve(matrix, b)

    f = nsi.custom_root(lambda x, b: A @ x - b, solve=solve, init_argnum=None)(lambda b: np.linalg.solve(A, b))
    jax.jvp(f, (np.ones(3),), (np.ones(3),))
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [A], atol=1e-15)
    jax.vjp(f, np.ones(3))[1](jnp.ones(3))
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [A, A.T], atol=1e-15)


@pytest.mark.parametrize("solver", ["GMRES", "BiCGStab", "NormalCG", "Dense", "Auto"])
def test_linear_solvers_agree(solver):
    linear_solver = getattr(linear_solvers, solver)()
    row = ROWS["nonlinear"]
    f = row.solver(derivative=derivatives.Implicit(linear_solver=linear_solver))
    pulled = jax.jit(jax.grad(lambda *theta: f(*theta).sum(), 1))(*row.theta)
    A, B, t = row.theta
    slope = A + np.diag(t[0] / 2 / np.cosh(row.solution(*row.theta)) ** 2)
    want = np.outer(np.linalg.solve(slope.T, np.ones(3)), np.sin(t))
    np.testing.assert_allclose(pulled, want, rtol=1e-10)  # GMRES stops at 2e-12 of the right-hand side


@pytest.mark.parametrize(
    "derivative, want",
    [
        (derivatives.Implicit(), 1 / 0.7),
        (derivatives.OneStep(), 1.0),
        (derivatives.Truncated(3), 1 + 0.3 + 0.09),
        (derivatives.Truncated(2, damping=0.5), 0.5 + 0.5 * 0.65),
        (derivatives.Neumann(2), 1 + 0.3),
    ],
    ids=str,
)
def test_derivative_modes_of_an_opaque_fixed_point(derivative, want):
    f = nsi.custom_fixed_point(lambda z, a: 0.3 * z + a, derivative=derivative)(lambda z0, a: np.asarray(a) / 0.7)
    assert jax.grad(f, 1)(0.0, 2.0) == pytest.approx(want, rel=1e-12)
    assert jax.jvp(lambda a: f(0.0, a), (2.0,), (1.0,))[1] == pytest.approx(want, rel=1e-12)


def test_root_jvp_and_root_vjp():
    row = ROWS["nonlinear"]
    z = row.solution(*row.theta)
    d = tuple(0.1 * np.cos(x) for x in row.theta)
    ct = np.arange(3.0)
    want = jax.jit(lambda *theta: (jax.jvp(row.newton, theta, d)[1], jax.vjp(row.newton, *theta)[1](ct)))(*row.theta)
    for solve in (None, lambda matvec, b: jnp.linalg.solve(jax.vmap(matvec)(jnp.eye(3)).T, b)):

        @jax.jit
        def both(*theta, solve=solve):
            moved = nsi.root_jvp(row.equation, z, theta, d, solve)
            return moved, nsi.root_vjp(row.equation, z, theta, ct, solve)

        for got, expected in zip(*map(jax.tree.leaves, (both(*row.theta), want)), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_known_roots_of_mixed_arguments():
    def equation(z, a, n, key):
        return z**n - a

    zero = np.zeros((), jax.dtypes.float0)
    key = jax.random.key(0)
    assert jax.jit(lambda: nsi.root_jvp(equation, 2.0, (4.0, 2, key), (1, zero, zero)))() == 0.25
    assert jax.jit(lambda: nsi.root_vjp(equation, 2.0, (4.0, 2, key), 1)[0])() == 0.25


def test_equation_of():
    np.testing.assert_allclose(nsi.equation_of(lambda z, a, *, b: (z[0] / 2 + a * b,))((4.0,), 3.0, b=2.0), (4.0,))


LAM = 0.3
data = np.random.default_rng(3)
X = data.normal(size=(20, 5))
Y = X @ np.array([1.0, 0.0, -2.0, 0.0, 0.5]) + 0.1 * data.normal(size=20)


def prox_gradient(w, X, y, lam):
    """One proximal gradient step of scikit-learn's Lasso objective, ‖Xw - y‖²/(2n) + lam ‖w‖₁."""
    n = len(y)
    step = 0.5
    return nsi.soft_threshold(w - step * X.T @ (X @ w - y) / n, step * lam)


def sk_lasso(X, y, lam):
    return Lasso(alpha=lam, fit_intercept=False, tol=1e-12, max_iter=100000).fit(X, y).coef_


def sk_ridge(X, y, lam):
    return Ridge(alpha=lam, fit_intercept=False, solver="cholesky").fit(X, y).coef_


def ridge_gradient(w, X, y, lam):
    return X.T @ (X @ w - y) + lam * w


SKLEARN = {
    "lasso": (nsi.custom_fixed_point, prox_gradient, sk_lasso),
    "ridge": (nsi.custom_root, ridge_gradient, sk_ridge),
}


@pytest.mark.parametrize("name", SKLEARN)
def test_scikit_learn(name):
    decorate, equation, fit = SKLEARN[name]
    differences = (fit(X, Y, LAM + 1e-5) - fit(X, Y, LAM - 1e-5)) / 2e-5
    # eager: the solver sees concrete arrays, no host needed (its alpha must be a plain number)
    eager = decorate(equation, init_argnum=None)(lambda X, y, lam: fit(X, y, float(lam)))
    np.testing.assert_allclose(jax.grad(lambda lam: eager(X, Y, lam).sum())(LAM), differences.sum(), atol=1e-6)
    # compiled and batched: through the host
    hosted = decorate(equation, init_argnum=None)(nsi.host(fit, like=lambda X, y, lam: jnp.zeros(X.shape[1])))
    jacobians = jax.jit(jax.vmap(jax.jacrev(lambda lam: hosted(X, Y, lam))))(jnp.array([LAM, 2 * LAM]))
    np.testing.assert_allclose(jacobians[0], differences, atol=1e-6)


def test_scipy_root_and_minimize():
    def system(x, a):
        return jnp.array([x[0] + x[1] ** 3 - a, x[1] - 0.5 * jnp.sin(x[0])])

    def numpy_system(x, a):
        return np.array([x[0] + x[1] ** 3 - a, x[1] - 0.5 * np.sin(x[0])])

    def find(x0, a):
        return scipy.optimize.root(numpy_system, np.asarray(x0), args=(float(a),), tol=1e-13).x

    differences = (find(np.ones(2), 1.0 + 1e-5) - find(np.ones(2), 1.0 - 1e-5)) / 2e-5
    hosted = nsi.custom_root(system)(nsi.host(find))
    np.testing.assert_allclose(jax.jit(jax.jacrev(hosted, 1))(jnp.ones(2), 1.0), differences, rtol=1e-7)

    def objective(x, a):
        return jnp.sum(x**4) / 4 + jnp.sum((x - a) ** 2) / 2

    def minimise(x0, a):
        slope = lambda x: x**3 + x - a  # noqa: E731
        return scipy.optimize.minimize(lambda x: (x**4 / 4 + (x - a) ** 2 / 2).sum(), x0, jac=slope, tol=1e-12).x

    solve = nsi.custom_root(jax.grad(objective))(nsi.host(minimise))
    x = solve(jnp.zeros(1), 2.0)  # x³ + x = 2 at 1, dx/da = 1/(3x² + 1)
    np.testing.assert_allclose(x, 1.0, rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacrev(solve, 1))(jnp.zeros(1), 2.0), 0.25, rtol=1e-8)


class Counter:
    """An equation that counts how often its Python code runs."""

    def __init__(self, equation):
        self.equation, self.count = equation, 0

    def __call__(self, *args):
        self.count += 1
        return self.equation(*args)


@pytest.mark.parametrize(
    "use",
    [
        lambda f: f(4.0),
        lambda f: jax.jvp(f, (4.0,), (1.0,)),
        lambda f: jax.vjp(f, 4.0)[1](1.0),
        lambda f: jax.jit(jax.grad(f))(4.0),
        lambda f: jax.jacfwd(jax.grad(f))(4.0),
        lambda f: jax.vmap(jax.grad(f))(jnp.array([4.0, 9.0])),
    ],
    ids=["value", "jvp", "vjp", "jit grad", "hessian", "vmap grad"],
)
def test_the_equation_is_traced_once(use):
    root, step = Counter(square), Counter(lambda x, a: (x + a / x) / 2)
    jax.eval_shape(lambda: use(nsi.custom_root(root, init_argnum=None)(jnp.sqrt)))
    jax.eval_shape(lambda: use(nsi.custom_fixed_point(step, init_argnum=None)(jnp.sqrt)))
    assert (root.count, step.count) == (1, 1)
    iterated = Counter(lambda x, a: (x + a / x) / 2)
    jax.eval_shape(lambda: use(lambda a: nsi.fixed_point(iterated, 1.0, a).value))
    assert iterated.count == 1


def f(x, a):
    return x - a


VECTOR = np.ones(2)
WRONG = {
    "not square": (
        lambda: nsi.custom_root(lambda x, a: x[:1])(lambda x0, a: x0)(VECTOR, 1.0),
        r"residual returns float64\[1\] \(1 numbers\), the solution is float64\[2\] \(2\)",
    ),
    "not square tree": (
        lambda: nsi.custom_root(lambda x, a: x[0])(lambda x0, a: (x0, 1.0))(VECTOR, 1.0),
        "has_aux=True if the solver returns more",
    ),
    "integer residual": (
        lambda: nsi.custom_root(lambda x, a: jnp.zeros(2, int))(lambda x0, a: x0)(VECTOR, 1.0),
        r"int64\[2\] \(0 numbers\)",
    ),
    "integer solution": (lambda: nsi.custom_root(f)(lambda x0, a: 3)(1.0, 1.0), "no floating-point leaf: int64"),
    "no solution": (lambda: nsi.custom_root(f)(lambda x0, a: None)(1.0, 1.0), "no floating-point leaf"),
    "another structure": (
        lambda: nsi.custom_fixed_point(lambda x, a: (x,))(lambda x0, a: x0)(VECTOR, 1.0),
        "fixed-point map returns.*like the one it is given",
    ),
    "another shape": (
        lambda: nsi.custom_fixed_point(lambda x, a: x[:, None])(lambda x0, a: x0)(VECTOR, 1.0),
        "fixed-point map returns",
    ),
    "no array": (
        lambda: nsi.custom_root(f)(lambda x0, a: scipy.optimize.OptimizeResult(x=x0))(VECTOR, 1.0),
        "leaf of type OptimizeResult.*return the array itself",
    ),
    "too many arguments": (
        lambda: nsi.custom_root(f)(lambda x0, a, b: x0)(1.0, 1.0, 2.0),
        r"equation \(x, a\) cannot be called with the solution, 2 more positional arguments: too many",
    ),
    "unknown keyword": (
        lambda: nsi.custom_root(f)(lambda x0, b: x0)(1.0, b=1.0),
        "and the keywords b: missing a required argument: 'a'",
    ),
    "forgotten init_argnum": (lambda: nsi.custom_root(f)(lambda a: a)(1.0), "init_argnum=None"),
    "aux without container": (
        lambda: nsi.custom_root(f, has_aux=True)(lambda x0, a: x0)(VECTOR, 1.0),
        "has_aux=True, and the solver returned",
    ),
    "solve without a linear system": (
        lambda: nsi.custom_root(f, solve=lambda m, b: b, derivative=derivatives.OneStep()),
        "this derivative solves no linear system",
    ),
    "structure ProxCG needs": (
        lambda: jax.grad(
            nsi.custom_root(f, derivative=derivatives.Implicit(linear_solvers.ProxCG()))(lambda x0, a: a), 1
        )(1.0, 1.0),
        "structure General",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_an_error_when_traced(name):
    wrong, match = WRONG[name]
    with pytest.raises(InputError, match=re.compile(match, re.DOTALL)) as caught:
        jax.eval_shape(wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and lines[0].startswith("`") and lines[2].startswith("Try: (a) ")


def test_an_error_inside_the_equation_stays_as_it_is():
    with pytest.raises(TypeError, match="argument of mine"):
        nsi.custom_root(lambda x, a: (_ for _ in ()).throw(TypeError("argument of mine")))(lambda x0, a: x0)(1.0, 1.0)


@pytest.mark.parametrize("derivative", [derivatives.Unrolled(3), derivatives.Piggyback()], ids=str)
def test_modes_that_follow_the_steps_refuse_an_opaque_solver(derivative):
    with pytest.raises(nsi.DerivativeError, match="the solver is opaque"):
        nsi.custom_fixed_point(lambda x, a: x / 2 + a, derivative=derivative)(lambda x0, a: 2 * a)(1.0, 1.0)


@pytest.mark.parametrize("derivative", [derivatives.OneStep(), derivatives.Neumann(2)], ids=str)
def test_modes_that_need_a_map_refuse_a_root(derivative):
    with pytest.raises(nsi.DerivativeError, match=r"Try: \(a\)"):
        nsi.custom_root(f, derivative=derivative)(lambda x0, a: a)(1.0, 1.0)


def test_everything_raised_on_purpose_has_one_base():
    assert issubclass(InputError, (nsi.NsimplicitError, ValueError))
    assert issubclass(nsi.DerivativeError, nsi.NsimplicitError) and B.shape == (3, 2)


def test_a_splitting_is_an_equation_with_structure():
    """The class of a splitting in the place of T: a foreign solver gets the linear solvers of the splitting."""
    rng = np.random.default_rng(0)
    A, b, w = rng.normal(size=(30, 80)), rng.normal(size=30), 4.0
    want = nsi.fixed_point(nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, b), nsi.prox.L1(w)), jnp.zeros(80))

    def foreign(x0, f, g, step):
        del x0, f, g, step
        return want.value

    def shifted(y0, f, g, step):
        return foreign(y0, f, g, step) - step * f.gradient(want.value)

    x, S = np.asarray(want.value), np.flatnonzero(want.value)
    slope = -2 * x[S] @ np.linalg.solve(A[:, S].T @ A[:, S], np.sign(x[S]))
    step = 0.01
    for splitting, solve in ((nsi.splittings.ForwardBackward, foreign), (nsi.splittings.DouglasRachford, shifted)):

        def loss(w, tap, splitting=splitting, solve=solve):
            g = nsi.prox.L1(w)
            z = nsi.custom_fixed_point(splitting)(solve).reporting(tap)(
                jnp.zeros(80), nsi.prox.LeastSquares(A, b), g, step
            )
            x = z if splitting is nsi.splittings.ForwardBackward else g.prox(z, step)
            return jnp.sum(x**2)

        gradient, report = jax.jit(jax.grad(loss, argnums=(0, 1)))(w, nsi.tap())
        np.testing.assert_allclose(gradient, slope, rtol=1e-8)
        np.testing.assert_allclose(jax.jit(jax.jacfwd(loss))(w, nsi.tap()), slope, rtol=1e-8)
        assert report.num_steps == 2 and report.num_failures == 0  # RestrictedCholesky: two products
