"""Kinks that share a number: what is right for one selection, and what no analysis may claim for all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi

POINT = jnp.array([2.5, 1.0, 0.25])  # tau = 1: the second entry is at the kink
SETS = {
    "Simplex": (nsi.prox.Simplex, POINT),
    "L1Ball": (nsi.prox.L1Ball, POINT),
    "CappedSimplex": (lambda total, **options: nsi.prox.CappedSimplex(total, 9.0, **options), POINT),
}


@pytest.mark.parametrize("name", SETS)
def test_a_singular_selection_is_not_called_regular(name):
    """z = P(M z + c): with the second entry in the support det(I - P' M) is 1 - 2/2 = 0."""
    make, x = SETS[name]
    M = jnp.zeros((3, 3)).at[0, 0].set(2.0)
    z = make(1.5).project(x)
    c = x - M @ z

    def residual(z, c, **options):
        return z - make(1.5, **options).project(M @ z + c)

    dets = [np.linalg.det(jax.jacrev(lambda z, s=s: residual(z, c, selection=s))(z)) for s in (0.0, 1.0)]
    np.testing.assert_allclose(dets, [1.0, 0.0], atol=1e-14)
    found = nsi.certify(residual)(z, c)
    assert found.verdict == "undecided" and "shares its weight" in found.reason
    guarded = nsi.derivatives.Implicit(guard=nsi.guards.AllSelections(on_undecided="fail"))
    solve = nsi.custom_root(residual, init_argnum=None, derivative=guarded)(lambda c: z)
    assert np.all(np.isnan(jax.jit(jax.grad(lambda c: solve(c)[0]))(c)[0]))


def test_other_analyses_say_that_they_do_not_look_behind_it():
    project = nsi.prox.Simplex(1.5).project
    with pytest.raises(nsi.InputError, match="shares its weight"):
        nsi.calculus.conservative_jacobian(project)(POINT)
    with pytest.warns(UserWarning, match="share their weights"):
        nsi.with_selection(project, nsi.Along((jnp.array([0.0, 1.0, 0.0]),)))(POINT)
    # Where no such kink is active, nothing is lost.
    assert nsi.calculus.conservative_jacobian(project)(POINT + jnp.array([0.5, 0.0, 0.0])).dimension() == 0


def test_a_block_of_zero_eigenvalues_turns_together():
    """Its derivatives are more than those of its pairs taken one by one; a single zero is a switch like others."""

    def residual(z, c):
        return z - nsi.prox.PSDCone().project(0.5 * z + c)

    for spectrum, verdict in (((1.0, 0.0, -1.0), "regular"), ((1.0, 0.0, 0.0), "undecided")):
        x = jnp.diag(jnp.array(spectrum))
        z = nsi.prox.PSDCone().project(x)
        assert nsi.certify(residual)(z, x - 0.5 * z).verdict == verdict


def test_a_surrounding_selection_leaves_it_alone():
    """Half of a weight here and the whole of it there is no element of anything."""
    slopes = [
        jax.jacrev(f)(POINT)
        for f in (nsi.with_selection(nsi.prox.Simplex(1.5).project, 1.0), nsi.prox.Simplex(1.5).project)
    ]
    np.testing.assert_array_equal(*slopes)
