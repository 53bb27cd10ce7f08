"""The checks pass on what the package has, and name the law that a broken object fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit import InputError, prox, splittings
from nsimplicit.solvers.base import State
from nsimplicit.testing import check_projection, check_prox, check_solver, check_splitting
from tests.cases.axes import PROBLEMS

V = np.array([0.9, -1.7, 0.1])


def wrong(g, p):
    return prox.from_function(g, p)


BROKEN_PROXES = {
    "the threshold is twice too large": (
        wrong(lambda x: jnp.sum(jnp.abs(x)), lambda x, s: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 2 * s, 0)),
        "better than the prox",
    ),
    "expands": (wrong(lambda x: -jnp.sum(x**2), lambda x, s: x / (1 - 2 * s / 10)), "better|nonexpansive"),
    "a derivative of its own": (
        wrong(lambda x: jnp.sum(x**2) / 2, lambda x, s: jax.lax.stop_gradient(x / (1 + s)) + 0 * x),
        "point 0",
    ),
}


def test_what_the_package_has_passes():
    check_prox(
        prox.ElasticNet(0.9, np.array([0.7, 0.1, 1.5])),
        [V],
        value=lambda x: np.sum(0.9 * abs(x)) + 0.5 * x @ (x * [0.7, 0.1, 1.5]),
    )
    kink = (np.array([0.35, 2.0, 0.1]), [np.diag([0.0, 1, 0]), np.diag([1.0, 1, 0])])
    check_prox(prox.L1(0.7), [V], kinks=[kink])
    check_projection(prox.L2Ball(1.0), [V], project=lambda x: x / max(1, np.linalg.norm(x)))


@pytest.mark.parametrize("name", BROKEN_PROXES)
def test_a_broken_prox_is_named(name):
    g, text = BROKEN_PROXES[name]
    with pytest.raises(AssertionError, match=text):
        check_prox(g, [V])


def test_missing_vertices_are_named():
    kink = (np.array([0.35, 2.0, 0.1]), [np.diag([0.0, 1, 0])])
    with pytest.raises(AssertionError, match="is no vertex"):
        check_prox(prox.L1(0.7), [V], kinks=[kink])


def test_a_projection_that_is_not_one():
    class Shrunk(prox.Set):
        def __call__(self, x):
            return jnp.where(jnp.all(jnp.abs(x) <= 1), 0.0, jnp.inf)

        def project(self, x):
            return 0.5 * x / jnp.maximum(jnp.max(jnp.abs(x)), 1)

    jax.tree_util.register_pytree_node(Shrunk, lambda s: ((), None), lambda *_: Shrunk())
    with pytest.raises(AssertionError):
        check_projection(Shrunk(), [V])


@pytest.mark.parametrize(
    "solver",
    [nsi.solvers.Picard(), nsi.solvers.Anderson(), nsi.solvers.Nesterov(), nsi.solvers.SemismoothNewton()],
    ids=lambda s: type(s).__name__,
)
def test_solvers_pass(solver):
    check_solver(solver)


def test_a_solver_that_ends_with_an_extrapolation_is_named():
    class Extrapolated(nsi.solvers.Picard):
        def step(self, problem, state, space):
            new = super().step(problem, state, space)
            return State(new.image, jax.tree.map(lambda x: 1.0000001 * x + 1e-9, new.image), new.residual)

    with pytest.raises(AssertionError, match="another solution|zeros"):
        check_solver(Extrapolated(0.999))


def test_a_decorated_solver():
    def newton(x, a):
        return jax.lax.fori_loop(0, 40, lambda _, x: (x + a / x) / 2, x)

    check_solver(nsi.custom_root(lambda x, a: x**2 - a)(newton), 1.0, 4.0)
    with pytest.raises(AssertionError, match="misses its equation"):
        check_solver(nsi.custom_root(lambda x, a: x**3 - a)(newton), 1.0, 4.0)
    with pytest.raises(InputError, match="given its equation"):
        check_solver(newton)


ONE_EACH = ["FB lasso", "DR inverse covariance", "ADMM trend filtering", "DY capped lasso", "CP trend filtering"]


@pytest.mark.parametrize("name", ONE_EACH)
def test_splittings_pass(name):
    problem = PROBLEMS[name]()
    check_splitting(problem.make(*problem.theta), problem.z0)


def test_a_splitting_with_another_equation_is_named():
    f, g = prox.LeastSquares(jnp.array([[2.0, 0.5], [0.3, 1.0]]), jnp.array([3.0, 0.2])), prox.L1(0.4)

    class Other(splittings.Splitting):
        def prepare(self, z):
            from nsimplicit.splittings.base import Prepared

            inner = splittings.ForwardBackward(f, g, 0.1).prepare(z)
            wrong = splittings.ForwardBackward(f, prox.L1(0.5), 0.1).prepare(z)
            return Prepared(inner.equation, inner.solution, wrong.equation)

    jax.tree_util.register_pytree_node(Other, lambda s: ((), None), lambda *_: Other())
    with pytest.raises(AssertionError, match="differentiated is off"):
        check_splitting(Other(), jnp.zeros(2))
    with pytest.raises(AssertionError, match="no minimum"):
        check_splitting(splittings.ForwardBackward(f, g, 0.1), jnp.zeros(2), objective=lambda x: f(x) + 2 * g(x))


def test_checks_need_64_bits():
    with jax.enable_x64(False), pytest.raises(InputError, match="64-bit numbers are off"):
        check_solver(nsi.solvers.Picard())
