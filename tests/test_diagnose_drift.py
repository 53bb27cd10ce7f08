"""What ``diagnose`` says of the derivative's error, against that error: solutions from tight to loose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(4, 4)) / 4
TALL = RNG.normal(size=(8, 4))
SPARSE = np.array([2.0, 0.0, -1.0, 0.0])


def gradient(x, a, b):
    return jax.grad(lambda x: jnp.sum(b * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2))(x)


def lasso(x, matrix, data):
    return nsi.soft_threshold(x - 0.05 * matrix.T @ (matrix @ x - data), 0.02) - x


# the equation, its parameters, where Newton's method starts
EQUATIONS = {
    "x exp(x)": (lambda x, a: x * jnp.exp(x) - a, (np.array([0.5, 3.0, 20.0]),), np.ones(3)),
    "tanh layer": (lambda x, w, b: jnp.tanh(w @ x + b) - x, (SQUARE, RNG.normal(size=4)), np.zeros(4)),
    "softmax": (lambda x, a, t: x + t * jax.nn.softmax(x) - a, (RNG.normal(size=4), np.array(3.0)), np.zeros(4)),
    "Rosenbrock": (gradient, (np.array([1.0]), np.array([2.0])), np.array([0.9, 0.9, 0.9])),
    "squared relu": (lambda x, a: x + nsi.relu(x) ** 2 - a, (np.array([2.0, -1.0, 0.5]),), np.ones(3)),
    "Lasso": (lasso, (TALL, TALL @ SPARSE), SPARSE),
}
DISTANCES = 10.0 ** -np.arange(2, 9, 2)


def solve(equation, parameters, z):
    for _ in range(50):
        z = z - np.linalg.solve(jax.jacobian(equation)(z, *parameters), equation(z, *parameters))
    return z


def derivative(equation, parameters, z):
    """dz/dparameters by the implicit function theorem, all columns side by side."""
    to = jax.jacobian(equation, tuple(range(1, 1 + len(parameters))))(z, *parameters)
    return np.linalg.solve(
        jax.jacobian(equation)(z, *parameters), np.concatenate([t.reshape(z.size, -1) for t in to], 1)
    )


@pytest.mark.parametrize("name", EQUATIONS)
def test_the_error_is_bounded_and_not_by_much_more_than_needed(name):
    equation, parameters, start = EQUATIONS[name]
    parameters = tuple(map(jnp.asarray, parameters))  # NumPy would transpose a matrix before it is a constant
    z = solve(jax.jit(equation), parameters, start)
    moved = z * (1 + np.outer(DISTANCES, RNG.normal(size=z.size)))  # zeros of a sparse solution are found exactly
    reported = jax.jit(jax.vmap(lambda z: nsi.diagnose(equation)(z, *parameters).derivative_error))(moved)
    exact = derivative(equation, parameters, z)
    for bound, near in zip(reported, moved, strict=True):
        true = np.linalg.norm(derivative(equation, parameters, near) - exact) / np.linalg.norm(exact)
        assert 1 <= bound / true <= 20, (bound, true)


def test_numbers_that_are_no_constants_of_the_program_are_stood_in_for_by_a_shift():
    near = np.log(2.0) / 3 + 1e-5
    found = nsi.diagnose(lambda x, a: jnp.exp(3 * x) - a)(near, 2.0)
    np.testing.assert_allclose(found.drift, 3e-5, rtol=1e-4)  # of exp(-3 x) / 3, which is the derivative in a


STILL = {
    "linear": lambda x, b: 3 * x + jnp.roll(x, 1) - b,
    "the solution does not depend on b": lambda x, b: 2 * x - 1 + 0 * b,
}


@pytest.mark.parametrize("name", STILL)
def test_nothing_drifts(name):
    found = nsi.diagnose(STILL[name])(np.array([0.3, 0.1, -5.0]), jnp.ones(3))
    assert found.drift == 0 and found.derivative_error <= 1e-14 and found.verdict == "unconverged"


def test_a_fixed_point_moves_along_its_newton_step():
    def T(z, t):
        return jnp.cos(z) * t

    @nsi.custom_fixed_point(T, init_argnum=None)
    def loose(t):
        return jnp.array([0.65])

    t = jnp.array([0.8])
    z = loose(t)
    end = z + (T(z, t) - z) / (1 + t * jnp.sin(z))
    slope, there = (jnp.cos(x) / (1 + t * jnp.sin(x)) for x in (z, end))
    np.testing.assert_allclose(nsi.diagnose(loose)(t).drift, abs(slope / there - 1)[0], rtol=1e-12)  # rounding


def test_loose_solutions_are_called_by_their_name():
    def steep(slope, off):
        f = nsi.diagnose(lambda x, a: jnp.exp(slope * x) - a)
        return f(jnp.log(jnp.array([2.0])) / slope + off, jnp.array([2.0]))

    found = steep(50.0, 2e-9)
    assert found.verdict == "loose" and int(found.code) == 0
    assert "derivative good to about 3e-07" in str(found) and "the forward solve is too loose" in str(found)
    assert steep(1e7, 1e-8).verdict == "unconverged"  # close, and the derivative off by a tenth


def test_a_nan_does_not_pass():
    # Fine at z, and the equation is not defined where the Newton step ends.
    found = nsi.diagnose(lambda x, a: jnp.log(1 + x) + 1e-8 * a * jnp.where(x < 0, jnp.nan, 1.0))(
        jnp.zeros(1), jnp.ones(1)
    )
    assert jnp.isnan(found.drift) and int(found.code) < 0 and "derivative good to about nan" in str(found)
