"""Write your own prox: the pinball function, an l1 norm whose price above zero is not that below.

You learn: a function with a prox is two functions, or a class of ten lines; its parameters are differentiated like
any argument; what is built from `nsi` primitives has selections at its kinks; and `nsi.testing.check_prox` runs the
laws of a prox over it.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes

import nsimplicit as nsi

jax.config.update("jax_enable_x64", True)


def value(x, up, down):
    return jnp.sum(up * nsi.relu(x) + down * nsi.relu(-x))


def prox(x, step, up, down, selection=None):
    return nsi.relu(x - step * up, selection=selection) - nsi.relu(-x - step * down, selection=selection)


def short(up, down):
    return nsi.prox.from_function(value, prox, up, down)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Pinball(nsi.prox.Function):
    """The same with a name, an option, and a place for work that is done once for all x."""

    up: Any
    down: Any
    selection: Any = field(default=None, metadata={"static": True})

    def __call__(self, x):
        return value(x, self.up, self.down)

    def prepare(self, step):
        return lambda x: prox(x, step, self.up, self.down, self.selection)


# The law of a prox: it minimises g(u) + (u - x)² / (2 step). No point of a fine grid does better.
g, step, grid = Pinball(up=1.0, down=0.25), 0.8, jnp.linspace(-3, 3, 60_001)
print("     x    prox  best of a grid")
for x in (-1.3, -0.1, 0.5, 0.8, 2.0):
    cost = jax.vmap(lambda u, x=x: g(u) + (u - x) ** 2 / (2 * step))
    u, best = g.prox(x, step), grid[cost(grid).argmin()]
    print(f"{x:6.1f}{u:8.3f}{best:16.4f}")
    assert cost(u[None]) <= cost(grid).min() + 1e-15 and abs(u - best) < 1e-4 and u == short(1.0, 0.25).prox(x, step)

# Its kink is at x = step·up. Left of it the derivative is 0, right of it 1, and there it is what you choose.
kink = {selection: float(jax.grad(Pinball(1.0, 0.25, selection).prox)(1.0, 1.0)) for selection in (None, "above", 0.3)}
print("derivative at the kink, by selection:", kink)
assert kink == {None: 0.0, "above": 1.0, 0.3: 0.3}

# On real data: a regression that needs four times the evidence to say that a feature raises y than that it lowers y.
data = load_diabetes()
X, y = data.data * len(data.data) ** 0.5, data.target - data.target.mean()


def solve(prices, penalty=Pinball):
    problem = nsi.splittings.ForwardBackward(nsi.prox.LeastSquares(X, y), penalty(*prices))
    return nsi.fixed_point(problem, jnp.zeros(X.shape[1]), solver=nsi.solvers.Nesterov(), tol=1e-13).value


prices = jnp.array([4000.0, 1000.0])
w, slopes = solve(prices), jax.jacrev(solve)(prices)
# In closed form: where w is not 0, X_Sᵀ(X_S w_S - y) is -up for a positive and +down for a negative coefficient.
S, closed = np.flatnonzero(w), np.zeros(slopes.shape)
closed[S] = np.linalg.solve(X[:, S].T @ X[:, S], np.stack([-1.0 * (w[S] > 0), w[S] < 0], axis=1))
print("\n     coefficient   d/d up  closed form   d/d down  closed form")
for name, a, row, exact in zip(data.feature_names, w, slopes + 0, closed + 0, strict=True):
    print(f"{name:5}{a:11.3f}{row[0]:9.5f}{exact[0]:13.5f}{row[1]:11.5f}{exact[1]:13.5f}")
assert np.allclose(slopes, closed, rtol=1e-10, atol=0)
assert np.allclose(jax.jacfwd(lambda prices: solve(prices, short))(prices), closed, rtol=1e-10, atol=0)

# Every other law at once, derivatives in the prices and the step among them; at two kinks, their four combinations.
kink, vertices = jnp.array([0.8, -0.2, 2.0]), [np.diag([a, b, 1.0]) for a in (0, 1) for b in (0, 1)]
nsi.testing.check_prox(g, [np.array([0.5, -1.7, 2.0])], step=step, kinks=[(kink, vertices)])
print("\nPinball obeys the laws of a prox.")
