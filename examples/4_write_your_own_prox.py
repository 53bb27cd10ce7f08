"""Write your own prox: the pinball loss, an l1 norm that charges negative and positive entries differently.

You learn: a prox is a class with a value and `prepare(step)`; its array fields are parameters, differentiated like
any argument; built from `nsi` primitives, its kinks have selections. The short form is `prox.from_function`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Pinball(nsi.prox.Function):
    """sum(max(up·x, -down·x)): every entry pays up for each unit above zero, down for each below."""

    up: Any
    down: Any
    selection: Any = field(default=None, metadata={"static": True})

    def __call__(self, x: Any) -> jax.Array:
        return jnp.sum(jnp.where(x > 0, self.up * x, -self.down * x))

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        def shrink(x: Any) -> jax.Array:
            above = nsi.relu(x - step * self.up, selection=self.selection)
            return above - nsi.relu(-x - step * self.down, selection=self.selection)

        return shrink


# The law of a prox: it minimises g(u) + |u - x|² / (2 step). No point of a fine grid beats it.
g, step, grid = Pinball(up=1.0, down=0.25), 0.8, jnp.linspace(-3, 3, 6001)
for x in (-1.3, -0.1, 0.5, 0.8, 2.0):
    costs = jax.vmap(lambda u, x=x: g(u) + (u - x) ** 2 / (2 * step))(jnp.append(grid, g.prox(x, step)))
    assert costs[-1] <= costs[:-1].min() + 1e-12

# At x = step·up there is a kink, and you choose.
print("derivative of the prox at its kink, by selection:")
for selection in ("below", 0.5, "above"):
    kinked = Pinball(1.0, 0.25, selection=selection)
    print(f"  {selection!s:6} {jax.grad(lambda x, f=kinked: f.prox(x, 1.0))(1.0):.2f}")

# In a splitting: sparse regression where a negative coefficient is cheap. Derivatives in both prices, both modes.
rng = np.random.default_rng(0)
A = jnp.asarray(rng.normal(size=(40, 8)))
b = A @ jnp.array([2.0, -1.0, 0.0, 0.0, 0.5, -0.5, 0.0, 0.0]) + 0.1 * rng.normal(size=40)


def solve(prices, penalty=lambda up, down: Pinball(up, down)):
    T = nsi.splittings.DouglasRachford(nsi.prox.LeastSquares(A, b), penalty(*prices), 1 / 40)
    return nsi.fixed_point(T, jnp.zeros(8)).value


prices, h = jnp.array([12.0, 3.0]), 1e-5
jacobian = jax.jacrev(solve)(prices)
quotient = jnp.stack([(solve(prices + h * d) - solve(prices - h * d)) / (2 * h) for d in jnp.eye(2)], axis=1)
print("\ncoefficient   d/d up  d/d down")
for x, row in zip(solve(prices), jacobian, strict=True):
    print(f"{x:11.4f} {row[0]:8.4f} {row[1]:9.4f}")
assert jnp.allclose(jacobian, jax.jacfwd(solve)(prices), atol=1e-12)
assert jnp.allclose(jacobian, quotient, atol=1e-6)  # of the solver's tolerance over h


# The short form: value and prox as functions, parameters after them.
def shrink(x, step, up, down):
    return nsi.relu(x - step * up) - nsi.relu(-x - step * down)


short = nsi.prox.from_function(lambda x, up, down: Pinball(up, down)(x), shrink, 12.0, 3.0)
assert jnp.allclose(solve(prices), solve(prices, lambda up, down: short), atol=1e-12)
