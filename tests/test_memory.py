"""How much memory a gradient takes, by XLA's own account of a compiled program: nothing here is run.

One map, z = tanh(z W + b) with z of 64 x 1000 in float32 (0.256 MB a state, 4 MB a weight). A gradient in W is an
output; what is counted are temporaries, in 10^6 bytes.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

import nsimplicit as nsi

D = nsi.derivatives
SHAPES = {"weight": (1000, 1000), "bias": (1000,), "start": (64, 1000)}
ARGS = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in SHAPES.values()]
OLD = tuple(map(int, jax.__version__.split(".")[:2])) <= (0, 10)  # XLA keeps one more array a step there


def cell(z, weight, bias):
    return jnp.tanh(z @ weight + bias)


def loss(weight, bias, start, *, derivative, **options):
    return jnp.sum(nsi.fixed_point(cell, start, weight, bias, derivative=derivative, **options).value ** 2)


@functools.cache
def temporary_mb(of, derivative, **options):
    fun = functools.partial(loss, derivative=derivative, **options)
    if isinstance(derivative, D.Piggyback):

        def program(weight, bias, start):
            return jax.jvp(lambda weight: fun(weight, bias, start), (weight,), (weight,))[1]

    else:
        program = jax.grad(fun, list(SHAPES).index(of))
    found = jax.jit(program).lower(*ARGS).compile().memory_analysis()
    assert found is not None, "XLA keeps no account on this platform"
    return found.temp_size_in_bytes / 1e6


ADJOINT = nsi.linear_solvers.FixedPointAdjoint(nsi.solvers.Picard())


@pytest.mark.parametrize("of", ["weight", "bias"])
@pytest.mark.parametrize(
    ("linear_solver", "most"), [(nsi.linear_solvers.Auto(), 2.32), (ADJOINT, 1.6)], ids=["Auto", "Picard"]
)
def test_implicit(of, linear_solver, most):
    """Nine states, of which BiCGStab moves seven; and six, which is z, T(z), b, x, M x and what M makes on the way."""
    assert temporary_mb(of, D.Implicit(linear_solver)) <= most


@pytest.mark.parametrize(
    "derivative", [D.Implicit(), D.Implicit(ADJOINT), D.Piggyback()], ids=["Auto", "Picard", "Piggyback"]
)
def test_flat_in_the_number_of_steps(derivative):
    few, many = (temporary_mb("weight", derivative, max_steps=steps) for steps in (50, 500))
    assert few == many


@pytest.mark.parametrize(("steps", "most"), [(50, 45 if OLD else 32), (500, 400 if OLD else 270)])
def test_unrolled(steps, most):
    assert temporary_mb("weight", D.Unrolled(steps)) <= most


@pytest.mark.parametrize(("of", "steps", "most"), [("weight", 50, 10), ("bias", 50, 5.5)])
def test_unrolled_with_checkpoints(of, steps, most):
    assert temporary_mb(of, D.Unrolled(steps, checkpoint=True)) <= most


@pytest.mark.slow
@pytest.mark.parametrize(("of", "steps", "most"), [("weight", 500, 18), ("bias", 500, 14)])
def test_unrolled_with_checkpoints_for_long(of, steps, most):
    assert temporary_mb(of, D.Unrolled(steps, checkpoint=True)) <= most
