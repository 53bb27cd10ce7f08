"""The guard ``Identified``: a Lasso solved too loosely has a wrong support, and a derivative that looks perfect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

RNG = np.random.default_rng(0)
A = RNG.normal(size=(12, 8)) @ np.diag(np.geomspace(1, 0.15, 8))
B = A @ np.where(np.arange(8) < 3, 2.0, 0.0) + 0.05 * RNG.normal(size=12)
WEIGHTS = jnp.array([0.2, 0.6, 1.5])


def solve(weight, steps, guard, tap=None):
    T = nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(A, B), nsi.prox.L1(weight), 1 / np.linalg.norm(A, 2) ** 2)
    derivative = nsi.derivatives.Implicit(guard=guard)
    return nsi.fixed_point(T, jnp.ones(8), tol=1e-14, max_steps=steps, derivative=derivative, tap=tap).value


@jax.jit
def run(weights, steps):
    """Per lane: the solution, the derivative by each guard, and the report of the second."""

    def lane(weight):
        x = solve(weight, steps, nsi.guards.Solved())
        slopes = [jax.grad(lambda w, g=g: jnp.sum(solve(w, steps, g)))(weight) for g in (nsi.guards.Solved(), GUARD)]
        return x, *slopes, jax.grad(lambda tap: jnp.sum(solve(weight, steps, GUARD, tap)))(nsi.tap())

    return jax.vmap(lane)(weights)


GUARD = nsi.guards.Identified()


def test_flags_lanes_whose_support_is_not_that_of_the_solution():
    exact, slopes, guarded, report = run(WEIGHTS, 100_000)
    np.testing.assert_array_equal(slopes, guarded)  # all pass at the solution
    assert not report.failed.any() and not report.num_kinks.any()
    for steps in (3, 30, 100, 300, 1000, 3000):
        x, loose, guarded, report = run(WEIGHTS, steps)
        wrong = ((x != 0) != (exact != 0)).any(1)
        np.testing.assert_array_equal(np.isnan(guarded), report.failed)
        np.testing.assert_array_equal(report.num_kinks > 0, report.failed)
        assert report.failed[wrong].all()  # no wrong support passes
        kept = ~np.asarray(report.failed)
        np.testing.assert_allclose(guarded[kept], slopes[kept], rtol=1e-6)
        if steps == 3:
            assert wrong.all()
            assert np.max(np.abs(loose / slopes - 1)) > 0.1  # what Solved lets through
        if steps == 3000:
            assert kept.any()


def test_a_smooth_equation_has_nothing_to_identify():
    def slope(guard):
        derivative = nsi.derivatives.Implicit(guard=guard)
        return jax.grad(lambda t: nsi.fixed_point(lambda z, t: jnp.cos(z) * t, 1.0, t, derivative=derivative).value)(
            0.9
        )

    assert slope(GUARD) == slope(nsi.guards.Solved())


def test_lanes_of_one_state_are_refused():
    derivative = nsi.derivatives.Implicit(guard=GUARD)
    with pytest.raises(nsi.InputError, match="Identified.*\n.*\nTry: .*vmap"):
        jax.grad(
            lambda t: nsi.fixed_point(
                lambda z, t: jnp.maximum(z / 2, t), jnp.ones((2, 1)), t, derivative=derivative, batch_axis=0
            ).value.sum()
        )(0.1)
