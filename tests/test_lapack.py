"""Factorisations for lanes: the answers of one matrix at a time, and no call that never returns."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nsimplicit.linear_solvers import lapack

SOAK = """
import jax, jax.numpy as jnp
from jax import lax
from nsimplicit.linear_solvers import lapack

jax.config.update("jax_enable_x64", True)
matrices = jax.random.normal(jax.random.key(0), (64, 256, 256))
step = jax.vmap(lambda a: a + 1e-9 * lapack.lu(a)[0])
out = jax.jit(lambda a: lax.fori_loop(0, 20, lambda _, a: step(a), a))(matrices)
print(bool(jnp.isfinite(out).all()))
"""


def test_lanes_are_solved_like_single_matrices():
    """Under one vmap, under two, with leading axes, and where only the right-hand side has lanes."""
    A, b = np.random.default_rng(0).normal(size=(2, 3, 5, 5)), np.random.default_rng(1).normal(size=(2, 3, 5, 1))

    def solve(A, b):
        factors, rows = lapack.lu(A)
        half = lapack.triangular(factors, jnp.take_along_axis(b, rows[..., None], -2), lower=True, unit=True)
        lower = lapack.cholesky(A @ jnp.swapaxes(A, -1, -2))
        turned = lapack.triangular(lower, lapack.triangular(lower, b, lower=True), lower=True, transpose=True)
        return lapack.triangular(factors, half, lower=False), turned

    gram = A @ A.swapaxes(-1, -2)
    for call in (solve, jax.vmap(solve), jax.vmap(jax.vmap(solve)), jax.vmap(solve, (1, 1), 1)):
        plain, definite = jax.jit(call)(A, b)
        np.testing.assert_allclose(plain, np.linalg.solve(A, b), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(definite, np.linalg.solve(gram, b), rtol=1e-8, atol=1e-10)
    one = jax.jit(jax.vmap(solve, (None, 0)))(A[0, 0], b[0])[0]
    np.testing.assert_allclose(one, np.linalg.solve(A[0, 0], b[0]), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_batch_of_factorisations_returns():
    """As one batched LAPACK call this stops for ever in two processes of three."""
    done = subprocess.run([sys.executable, "-c", SOAK], capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.strip() == "True", done.stderr
