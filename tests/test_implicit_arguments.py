"""Whatever a solver can be called with: every form of argument reaches the equation, and is differentiated.

One equation, x^p = a, with solution a^(1/p), so each derivative is known: at a = 4, p = 2 it is 1/4. Solvers compute
in NumPy on concrete values unless a test is about tracing.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi


def power(x, a, p=2.0):
    return x**p - a


def opaque(x0, a, p=2.0):
    """NumPy on what must be concrete values."""
    return np.asarray(a) ** (1 / np.asarray(p))


QUARTER = pytest.approx(0.25, rel=1e-14)
solve = nsi.custom_root(power)(opaque)


@pytest.mark.parametrize(
    "call",
    [
        lambda a: solve(1.0, a),
        lambda a: solve(1.0, a, 2.0),
        lambda a: solve(1.0, a=a),
        lambda a: solve(x0=1.0, a=a),
        lambda a: solve(a=a, p=2.0, x0=1.0),
        lambda a: solve(1.0, p=2, a=a),
    ],
)
def test_positional_and_keyword(call):
    assert jax.grad(call)(4.0) == QUARTER


def test_any_keywords():
    @nsi.custom_root(lambda x, **kw: x ** kw["p"] - kw["a"])
    def solve(x0, *, p=2.0, **kw):
        return opaque(x0, kw["a"], p)

    assert jax.grad(lambda a: solve(1.0, a=a))(4.0) == QUARTER  # the default of p reaches **kw


def test_any_positional():
    solve = nsi.custom_root(lambda x, *args: x ** args[1] - args[0])(lambda *args: opaque(*args))
    assert jax.grad(lambda a: solve(1.0, a, 2.0))(4.0) == QUARTER


@pytest.mark.parametrize("equation", [lambda x, a, p: x**p - a, lambda x, a, p=100.0: x**p - a])
def test_defaults_of_the_solver_reach_the_equation(equation):
    # also where the equation has a default of its own: both must solve one problem
    assert jax.grad(nsi.custom_root(equation)(opaque), 1)(1.0, 4.0) == QUARTER


def test_defaults_of_the_solver_alone_do_not():
    @nsi.custom_root(lambda x, a: x**2 - a)
    def solve(x=1.0, a=4.0, maxiter=100, tol=1e-9):
        return opaque(x, a)

    assert jax.grad(lambda a: solve(a=a))(4.0) == QUARTER  # x is the starting point, though F has an x


def test_equation_keeps_its_own_default():
    solve = nsi.custom_root(lambda x, a, shift=0.0: (x + shift) ** 2 - a)(lambda x0, a: opaque(x0, a))
    assert jax.grad(solve, 1)(1.0, 4.0) == QUARTER


def test_strings_callables_ints_none_and_keys():
    functions = {"square": lambda x: x**2}

    def equation(x, a, name, g, n, nothing, key):
        assert nothing is None and isinstance(n, int)
        return functions[name](x) - g(a) * n * jax.random.uniform(key)

    def solver(x0, a, name, g, n, nothing, key):
        assert name == "square"
        return jnp.sqrt(g(a) * n * jax.random.uniform(key))

    key = jax.random.key(3)
    u = float(jax.random.uniform(key))

    def call(a, key):
        return nsi.custom_root(equation)(solver)(1.0, a, "square", jnp.exp, 2, None, key)

    want = np.sqrt(2 * u * np.exp(0.5)) / 2  # of sqrt(2 u exp(a))
    assert jax.jit(jax.grad(call))(0.5, key) == pytest.approx(want, rel=1e-12)
    raw = jax.random.PRNGKey(3)
    assert jax.jit(jax.grad(call))(0.5, raw) == pytest.approx(want, rel=1e-12)


def test_trees_of_arguments():
    solve = nsi.custom_root(lambda x, p: x**2 - p["a"] * p["b"][0])(lambda x0, p: opaque(x0, p["a"] * p["b"][0]))
    grads = jax.grad(solve, 1)(1.0, {"a": 4.0, "b": (jnp.array(1.0), None)})
    assert grads["a"] == QUARTER and grads["b"][0] == pytest.approx(1.0) and grads["b"][1] is None


def test_numpy_arguments_stay_numpy():
    def solver(x0, a, data):
        assert type(data) is np.ndarray
        return opaque(x0, a)

    assert jax.grad(nsi.custom_root(lambda x, a, data: x**2 - a)(solver), 1)(1.0, 4.0, np.ones(3)) == QUARTER


def test_closed_over_values_are_differentiated():
    def outer(b):
        @nsi.custom_root(lambda x, a: x**2 - a * b)
        def solve(x0, a):  # this one JAX can see, with a loop it could not run backwards through
            return jax.lax.while_loop(lambda x: (x**2 - a * b) ** 2 > 1e-24, lambda x: (x + a * b / x) / 2, x0)

        return solve(1.0, 2.0)

    # sqrt(2 b) at b = 2: 2, 1/2, -1/8
    assert jax.jit(lambda b: jax.jvp(outer, (b,), (1.0,))[1])(2.0) == pytest.approx(0.5, rel=1e-12)
    first, second = jax.jit(jax.value_and_grad(jax.grad(outer)))(2.0)
    assert (first, second) == (pytest.approx(0.5, rel=1e-12), pytest.approx(-0.125, rel=1e-12))
    assert jax.jit(jax.vmap(jax.grad(outer)))(jnp.array([2.0, 8.0])) == pytest.approx([0.5, 0.25], rel=1e-12)


def test_solver_without_starting_point():
    solve = nsi.custom_root(power, init_argnum=None)(lambda a: opaque(None, a))
    assert jax.grad(solve)(4.0) == QUARTER


def test_starting_point_elsewhere():
    solve = nsi.custom_root(power, init_argnum=1)(lambda a, x0: opaque(x0, a))
    assert jax.grad(solve)(4.0, 1.0) == QUARTER
    assert jax.grad(lambda a: solve(a, x0=1.0))(4.0) == QUARTER
    assert jax.grad(lambda a: solve(x0=1.0, a=a))(4.0) == QUARTER


def test_derivative_in_the_starting_point_is_zero():
    solve = nsi.custom_root(lambda x, a: x**2 - a)(lambda x0, a: jnp.sqrt(a) + 0.5 * (x0 - x0**3))
    assert jax.grad(solve)(1.0, 4.0) == 0.0


def test_partial():
    assert jax.grad(nsi.custom_root(power)(functools.partial(opaque, p=2.0)), 1)(1.0, 4.0) == QUARTER
    assert jax.grad(nsi.custom_root(functools.partial(power, p=2.0))(opaque), 1)(1.0, 4.0) == QUARTER


def test_reference_signature_names_the_arguments():
    def reference(start, a, p):
        """The signature of a solver that hides its own."""

    solve = nsi.custom_root(power, reference_signature=reference)(lambda *args, **kw: opaque(kw["start"], kw["a"]))
    assert jax.grad(lambda a: solve(start=1.0, a=a))(4.0) == QUARTER


class Model:
    """A solver as a method, with the equation written in each way."""

    p = 2.0

    def residual(self, x, a):
        return x**self.p - a

    @nsi.custom_root(residual)
    def with_self(self, x0, a):
        return opaque(x0, a, self.p)

    @nsi.custom_root(lambda x, a: x**2 - a)
    def without_self(self, x0, a):
        return opaque(x0, a, self.p)

    @staticmethod
    @nsi.custom_root(power)
    def static(x0, a):
        return opaque(x0, a)

    def plain(self, x0, a):
        return opaque(x0, a, self.p)


@pytest.mark.parametrize("name", ["with_self", "without_self", "static"])
def test_methods(name):
    model = Model()
    assert jax.grad(getattr(model, name), 1)(1.0, 4.0) == QUARTER
    assert jax.grad(lambda a: getattr(model, name)(x0=1.0, a=a))(4.0) == QUARTER


def test_bound_methods():
    model = Model()
    assert jax.grad(nsi.custom_root(model.residual)(model.plain), 1)(1.0, 4.0) == QUARTER


@jax.tree_util.register_pytree_node_class
class Module:
    """A pytree whose leaf is a parameter of its own equation, as in Equinox and flax.nnx."""

    def __init__(self, a):
        self.a = a

    def tree_flatten(self):
        return (self.a,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)

    @nsi.custom_root(lambda self, x: x**2 - self.a)
    def solve(self, x0):
        return opaque(x0, self.a)


def test_method_of_a_module_is_differentiated_in_the_module():
    assert jax.grad(lambda m: m.solve(1.0))(Module(4.0)).a == QUARTER


def test_looks_like_the_solver():
    @nsi.custom_root(power)
    def named(x0, a):
        """Documented."""
        return opaque(x0, a)

    assert (named.__name__, named.__doc__, named.__wrapped__(1.0, 4.0)) == ("named", "Documented.", 2.0)
    assert named.equation is power
