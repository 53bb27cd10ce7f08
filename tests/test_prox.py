"""Laws that every function with a prox obeys, at the points and kinks of the table in ``tests/cases/prox.py``."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsimplicit import InputError, prox
from nsimplicit.testing import prox_laws
from nsimplicit.testing.case import draws, pack
from tests.cases.prox import ROWS, WRONG

SETS = [name for name, row in ROWS.items() if row.is_set]
# A Quadratic is a function of one vector; the second Translate is one of a Quadratic.
QUADRATIC = ["Linear", "SquaredL2", "Quadratic", "Quadratic with a diagonal", "LeastSquares tall"]
QUADRATIC += ["LeastSquares wide", "Translate of Quadratic", "Tilt and Regularize a quadratic"]
# One row for each object, and the other branches of those that have some.
OBJECTS = {row.name: name for name, row in reversed(ROWS.items()) if row.points}.values()
OBJECTS = [*OBJECTS, "L1 complex", "L2 complex", "GroupL2 along an axis", "Quadratic with a diagonal"]
OBJECTS += ["LeastSquares wide", "Translate of Quadratic"]
SOLVED = ["LeastSquares tall", "LogDet", "Simplex", "L2"]  # with rules of our own, reversed twice as well
CURVED = [name for name, row in ROWS.items() if row.curved]


def over(rows):
    return pytest.mark.parametrize("name", list(rows))


LAWS = {
    "agrees": ROWS,
    "minimises": ROWS,
    "contracts": ROWS,
    "biconjugate": OBJECTS,
    "projects": SETS,
    "symmetric": ROWS,
    "differentiates": ROWS,
    "limits": [name for name, row in ROWS.items() if row.kinks],
    "selects": [name for name, row in ROWS.items() if row.kinks],
    "eager": ["L1", "Box", "SeparableSum", "Conjugate of L1", "Simplex", "L1 complex"],  # it compiles every operation
    "lanes": ["L1", "Box", "SeparableSum", "Conjugate of L1", *CURVED],
    "keeps_precision": OBJECTS,
    "ascends": [name for name, row in ROWS.items() if row.function.is_smooth],
}


# One row after the other: its laws share compiled functions, and neighbouring tests run in one process.
BY_ROW = [(name, law) for name in ROWS for law, names in LAWS.items() if name in names]


@pytest.mark.parametrize(("name", "law"), BY_ROW)
def test_law(law, name):
    prox_laws.LAWS[law](ROWS[name])


@over(CURVED)
def test_second_derivatives_are_differences_of_the_first(name):
    prox_laws.curves(ROWS[name], twice_reversed=name in SOLVED)


@over(QUADRATIC)
def test_lipschitz_constants_are_attained(name):
    row = ROWS[name]
    g = row.function
    x = np.zeros_like(row.points[0])
    gradient = jax.jit(g.gradient)
    hessian = np.stack([gradient(e) - gradient(x) for e in np.eye(x.size)])
    np.testing.assert_allclose(g.lipschitz, np.linalg.eigvalsh(hessian)[-1], rtol=1e-12)


@over(QUADRATIC)
def test_as_quadratic_differs_by_a_constant(name):
    row = ROWS[name]
    g, x = row.function, row.points[0]
    quadratic = g.as_quadratic
    assert isinstance(quadratic, prox.Quadratic)
    np.testing.assert_allclose(quadratic.prox(x, row.step), g.prox(x, row.step), rtol=1e-12)
    for y in draws(np.random.default_rng(0), row, x, 3):
        np.testing.assert_allclose(quadratic(y) - g(y), quadratic(x) - g(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(quadratic.dense(x.size) @ x, quadratic.product(x), rtol=1e-14)


MATH = {
    "sum": np.sum, "abs": np.abs, "sign": np.sign, "max": np.maximum, "norm": np.linalg.norm,
    "inv": np.linalg.inv, "I": np.eye(3), "clip": np.clip, "sqrt": np.sqrt, "log": np.log,
}  # fmt: skip


@over([name for name, row in ROWS.items() if row.formula])
def test_the_formula_in_the_docstring_is_what_is_computed(name):
    row = ROWS[name]
    g = row.function
    text = re.search(r"Formula: (.*?)\n\n", type(g).__doc__, re.S).group(1)
    formulas = {call: f for call, f in re.findall(r"``(\w+)\([^)]*\) = (.*?)``", " ".join(text.split()))}
    assert set(formulas) == {"g", "prox"}
    names = dict(zip(row.formula.split(), row.params, strict=True))
    x = row.points[0]
    scope = {**MATH, **names, "x": x, "s": row.step}
    np.testing.assert_allclose(g(x), eval(formulas["g"], scope), rtol=1e-12)
    np.testing.assert_allclose(g.prox(x, row.step), eval(formulas["prox"], scope), rtol=1e-12, atol=1e-13)


@over(OBJECTS)
def test_objects_are_pytrees_whose_leaves_carry_any_sign(name):
    """A gradient with respect to an object is an object: its leaves are no parameters, and nothing checks them."""
    row = ROWS[name]
    x = row.every_point[0]
    g = row.function
    gradient = jax.jit(jax.grad(lambda g: -3 * pack(g.prox(x, row.step), jnp).sum()))(g)
    assert jax.tree.structure(gradient) == jax.tree.structure(g)


@over(WRONG)
def test_bad_parameters_raise(name):
    call, text = WRONG[name]
    with pytest.raises(InputError, match=re.compile(text, re.S)) as caught:
        call()
    lines = str(caught.value).splitlines()
    assert 2 <= len(lines) <= 3 and lines[0].startswith("`") and (len(lines) == 2 or lines[2].startswith("Try: (a)"))


@over(OBJECTS)
def test_exports_for_every_platform(name):
    row = ROWS[name]
    x = row.every_point[0]

    def derivative(params, x, step):
        return jax.grad(lambda p: pack(row.make(*p).prox(x, step), jnp).sum())(params)

    params = tuple(jnp.asarray(p) for p in row.params)
    jax.export.export(jax.jit(derivative), platforms=("cpu", "cuda", "tpu"))(params, x, row.step)
