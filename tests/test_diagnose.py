"""diagnose tells the good solution from each kind of bad one, and its numbers are the true ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from tests.cases.diagnose import ROWS

pytestmark = pytest.mark.filterwarnings("ignore:.*divide by zero:RuntimeWarning")


@pytest.mark.parametrize("name", ROWS)
def test_verdict(name):
    row = ROWS[name]
    found = nsi.diagnose(row.problem)(*row.args)
    assert isinstance(found, nsi.Diagnosis)
    assert found.verdict == row.verdict, str(found)
    assert f"verdict           {row.verdict}" in str(found)
    if row.kinks is not None:
        assert (int(found.num_kinks), int(found.num_unresolved)) == row.kinks
    if row.condition is not None:
        np.testing.assert_allclose(found.condition, row.condition, rtol=row.tolerance)


def test_distance_is_the_distance_to_the_true_solution():
    # A Newton step is exact for a linear equation, so only rounding separates the two.
    matrix = jnp.array([[2.0, 1.0], [0.0, 3.0]])
    wrong = jnp.array([1.0, 1.0])
    right = jnp.linalg.solve(matrix, jnp.array([1.0, 2.0]))
    found = nsi.diagnose(lambda x: matrix @ x - jnp.array([1.0, 2.0]))(wrong)
    expected = jnp.linalg.norm(right - wrong) / (1 + jnp.linalg.norm(wrong))
    np.testing.assert_allclose(found.distance, expected, rtol=1e-12)
    np.testing.assert_allclose(found.condition, np.linalg.cond(np.asarray(matrix)), rtol=1e-12)


def test_crosses_jit_and_vmap():
    many = jax.jit(jax.vmap(nsi.diagnose(lambda x, a: x**2 - a)))
    codes = many(jnp.array([[2.0], [0.0], [1.0]]), jnp.array([[4.0], [0.0], [4.0]])).code
    assert codes.tolist() == [1, -1, -3]


def test_a_traced_verdict_has_no_word():
    with pytest.raises(nsi.InputError, match=r"Diagnosis.verdict.*traced[\s\S]*Try: \(a\) use \.code"):
        jax.jit(lambda x: len(nsi.diagnose(lambda x: x - 1)(x).verdict))(jnp.ones(2))


def test_float32_is_judged_by_its_own_precision():
    good = nsi.diagnose(lambda x, a: x**2 - a)(jnp.sqrt(jnp.float32([2.0])), jnp.float32([2.0]))
    assert good.verdict == "fine" and good.dtype == "float32"
    scale = jnp.array([1.0, 3e-7])
    for dtype, verdict in ((jnp.float32, "singular"), (jnp.float64, "fine")):
        d = scale.astype(dtype)
        assert nsi.diagnose(lambda x, d: d * x - 1)(1 / d, d).verdict == verdict
