"""A folder is a menu: every choice on it is a final class below the menu's one abstract base."""

import inspect

import jax
import jax.numpy as jnp
import pytest

import nsimplicit as nsi

MENUS = {
    "prox": (nsi.prox, nsi.prox.Function),
    "splittings": (nsi.splittings, nsi.splittings.Splitting),
    "solvers": (nsi.solvers, nsi.solvers.Solver),
    "derivatives": (nsi.derivatives, nsi.derivatives.Derivative),
    "linear_solvers": (nsi.linear_solvers, nsi.linear_solvers.LinearSolver),
    "guards": (nsi.guards, nsi.guards.Guard),
}


def choices(menu, base):
    entries = [getattr(menu, name) for name in menu.__all__]
    return [c for c in entries if inspect.isclass(c) and issubclass(c, base) and not inspect.isabstract(c)]


@pytest.mark.parametrize("name", MENUS)
def test_the_base_is_abstract_and_choices_are_final(name):
    menu, base = MENUS[name]
    assert inspect.isabstract(base)
    with pytest.raises(TypeError, match="abstract"):
        base()
    found = choices(menu, base)
    assert len(found) >= 3
    for choice in found:
        assert not [other for other in found if other is not choice and issubclass(other, choice)], choice


ARGUMENTS = {"solver": nsi.solvers.Picard(), "first": nsi.linear_solvers.CG(), "second": nsi.linear_solvers.Dense()}


@pytest.mark.parametrize("name", ["solvers", "derivatives", "linear_solvers", "guards"])
def test_configuration_is_frozen_and_hashable(name):
    for choice in choices(*MENUS[name]):
        required = [p.name for p in inspect.signature(choice).parameters.values() if p.default is p.empty]
        made, again = (choice(*(ARGUMENTS.get(name, 5) for name in required)) for _ in range(2))
        assert hash(made) == hash(again) and made == again, choice
        assert not jax.tree.leaves([made]) or jax.tree.leaves([made]) == [made]  # not a pytree of its own
        with pytest.raises(AttributeError):
            made.memory = 3


def test_data_is_a_pytree_whose_leaves_are_the_problem():
    f = nsi.prox.LeastSquares(jnp.ones((3, 2)), jnp.ones(3))
    T = nsi.splittings.ForwardBackward(f, nsi.prox.L1(0.5), 0.1)
    assert [jnp.shape(x) for x in jax.tree.leaves(T)] == [(3, 2), (3,), (), ()]
    smooth = nsi.prox.smooth(lambda x, a: a * jnp.sum(x**2), 2.0)
    assert isinstance(smooth, nsi.prox.Smooth) and jax.tree.leaves(smooth) == [2.0]
    own = nsi.prox.from_function(lambda x, w: w * jnp.sum(x), lambda x, step, w: x - step * w, 3.0)
    assert isinstance(own, nsi.prox.FromFunction) and jax.tree.leaves(own) == [3.0]
    assert T != nsi.splittings.ForwardBackward(f, nsi.prox.L1(0.5), 0.1)  # compared by identity


def test_results_are_pytrees():
    solution = nsi.fixed_point(jnp.cos, 1.0)
    assert isinstance(solution, nsi.Solution)
    doubled = jax.tree.map(lambda x: 2 * x, solution)
    assert doubled.num_steps == 2 * solution.num_steps
    assert isinstance(nsi.tap(), nsi.Report) and all(x == 0 for x in jax.tree.leaves(nsi.tap()))
