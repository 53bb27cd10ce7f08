"""Switch normal form: the derivative of a program at a point, as a function of its selections.

At a point with k active kinks let ``u_i`` be the tangent of ``above - below`` at kink i, and
``y_i = s_i u_i`` what the selection s_i lets through. Then

    dF = base dz + gain y
    u  = into dz + coupling y          coupling is strictly lower triangular

with ``base`` the derivative where every kink takes its branch below. Eliminating y, with S = diag(s),

    J(s) = base + gain (I - S coupling)^-1 S into.

Everything set-valued about the program is a statement about these four matrices.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from nsimplicit._records import data, static


@data
class NormalForm:
    """The derivative of a program at one point, for every selection of its k active kinks.

    Args:
        base: array (m, n), the Jacobian where every kink takes its branch below.
        gain: array (m, k), the outputs per unit let through by each kink.
        into: array (k, n), the derivative of above - below at each kink, every kink before it below.
        coupling: array (k, k), strictly lower triangular: how a kink moves the later ones.
        argument_into: array (k, n), the derivative of the switch's argument, whose sign picks the branch.
        argument_coupling: array (k, k), strictly lower triangular, likewise.
        names: for each kink, what it is and where: ``"relu at model.py:12"``.
    """

    base: jax.Array
    gain: jax.Array
    into: jax.Array
    coupling: jax.Array
    argument_into: jax.Array
    argument_coupling: jax.Array
    names: tuple[str, ...] = static(())

    @property
    def num_kinks(self) -> int:
        """The number k of active kinks."""
        return self.into.shape[0]

    def jacobian(self, s: Any) -> jax.Array:
        """The Jacobian (m, n) for selections s: array (k,), the weight on the branch above."""
        return self.base + self.gain @ self._through(s, self.into)

    def arguments(self, s: Any) -> jax.Array:
        """The derivative (k, n) of each switch's argument, for selections s."""
        return self.argument_into + self.argument_coupling @ self._through(s, self.into)

    def _through(self, s: Any, into: jax.Array) -> jax.Array:
        s = jnp.asarray(s, self.base.dtype)[:, None]
        return jax.scipy.linalg.solve_triangular(
            jnp.eye(self.num_kinks, dtype=self.base.dtype) - s * self.coupling, s * into, lower=True, unit_diagonal=True
        )
