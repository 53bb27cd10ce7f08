"""Every solve and its derivative lowers for platforms that are not here: the test that it would compile there."""

import jax
import jax.numpy as jnp
import pytest

import nsimplicit as nsi

PLATFORMS = ("cpu", "cuda", "tpu", "rocm")


def forward_backward(A, b, weight):
    return nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, b), nsi.prox.L1(weight))


def douglas_rachford(A, b, weight):
    return nsi.splittings.DouglasRachford(nsi.prox.LeastSquares(A, b), nsi.prox.L1(weight), 1.0)


def admm(A, b, weight):
    return nsi.splittings.ADMM(nsi.prox.LeastSquares(A, b), nsi.prox.L1(weight))


SOLVERS = {
    "elimination in plain XLA": (8, None),
    "LU": (70, None),
    "GMRES": (8, nsi.linear_solvers.GMRES(restart=8)),
}


ROWS = [(forward_backward, name) for name in SOLVERS] + [(douglas_rachford, "LU"), (admm, "GMRES")]


@pytest.mark.parametrize(("splitting", "solver"), ROWS)
def test_gradient_lowers_everywhere(splitting, solver):
    n, linear_solver = SOLVERS[solver]
    options = {} if linear_solver is None else {"linear_solver": linear_solver}
    derivative = nsi.derivatives.Implicit(**options)

    def loss(A, b, weight, tap):
        T = splitting(A, b, weight)
        return nsi.fixed_point(T, jnp.zeros(n), derivative=derivative, tap=tap).value.sum()

    gradient = jax.jit(jax.grad(loss, argnums=(2, 3)))
    arguments = (jnp.eye(6, n) + 0.1, jnp.arange(6.0), jnp.asarray(0.3), nsi.tap())
    exported = jax.export.export(gradient, platforms=PLATFORMS)(*arguments)
    assert set(exported.platforms) == set(PLATFORMS)
    here, report = exported.call(*arguments)
    expected, _ = gradient(*arguments)
    assert jnp.allclose(here, expected, rtol=1e-12)
    assert report.num_solves == 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_certificate_inside_a_gradient_lowers_everywhere(solver):
    n, linear_solver = SOLVERS[solver]
    options = {} if linear_solver is None else {"linear_solver": linear_solver}
    derivative = nsi.derivatives.Implicit(guard=nsi.guards.AllSelections(max_kinks=3), **options)

    def loss(t, tap):  # two of the entries of z are on the kink
        return nsi.fixed_point(lambda z, t: nsi.relu(z) / 2 + t, 0 * t, t, derivative=derivative, tap=tap).value.sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    t = jnp.ones(n).at[:2].set(0)
    exported = jax.export.export(gradient, platforms=PLATFORMS)(t, nsi.tap())
    here, report = exported.call(t, nsi.tap())
    assert jnp.allclose(here, jnp.full(n, 2.0).at[:2].set(1.0), rtol=1e-12)
    assert (report.num_kinks, report.num_failures) == (2, 0)


def test_selections_along_a_direction_lower_everywhere():
    def slope(x):
        zero = nsi.with_selection(lambda x: jnp.abs(x) - jnp.abs(x) + jnp.sort(x), nsi.Along((jnp.ones(3),)))
        return jax.grad(lambda x: zero(x).sum())(x)

    exported = jax.export.export(jax.jit(slope), platforms=PLATFORMS)(jnp.zeros(3))
    assert exported.call(jnp.zeros(3)).tolist() == [1.0, 1.0, 1.0]


def test_a_guard_that_calls_the_host_does_not():
    derivative = nsi.derivatives.Implicit(guard=nsi.guards.Solved(on_failure="raise"))
    gradient = jax.jit(jax.grad(lambda t: nsi.fixed_point(lambda z: 0.5 * z + t, 0.0, derivative=derivative).value))
    with pytest.raises(NotImplementedError, match="callback"):
        jax.export.export(gradient, platforms=("cpu",))(jnp.asarray(1.0)).serialize()
    with pytest.raises(ValueError, match="cuda"):
        jax.export.export(gradient, platforms=("cuda",))(jnp.asarray(1.0))
