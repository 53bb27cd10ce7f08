"""One row per kind of entropic transport problem, and the oracle: Newton's method on the dual, in NumPy.

All rows have one shape, so that one compiled program serves them. Directions are those along which the derivative is
defined: of equal mass where the problem is balanced, and into the positive numbers where a weight is zero.
"""

import dataclasses

import numpy as np

from nsimplicit import layers

COVERED = frozenset({"layers.sinkhorn", "layers.Transport"})
ANSWER = layers.Transport

N, M = 4, 3
INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Row:
    a: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    epsilon: float = 0.2
    rho_a: float = INF
    rho_b: float = INF

    @property
    def args(self):
        return self.a, self.b, self.cost, self.epsilon, self.rho_a, self.rho_b

    @property
    def balanced(self):
        return np.isinf(self.rho_a) and np.isinf(self.rho_b)

    def direction(self, seed):
        """A change of all arguments."""
        rng = np.random.default_rng(seed)
        da, db = rng.normal(size=N) * (self.a > 0), rng.normal(size=M) * (self.b > 0)
        if self.balanced:
            da, db = da - self.a * da.sum() / self.a.sum(), db - self.b * db.sum() / self.b.sum()
        numbers = [rng.normal() if np.isfinite(x) else 0.0 for x in (self.epsilon, self.rho_a, self.rho_b)]
        return da, db, rng.normal(size=(N, M)), *numbers


def weights(n, seed, zero=None, mass=1.0):
    w = np.random.default_rng(seed).uniform(0.5, 1.5, size=n)
    if zero is not None:
        w[zero] = 0
    return mass * w / w.sum()


COST = np.random.default_rng(3).uniform(size=(N, M))
FORBIDDEN = np.where(np.arange(N * M).reshape(N, M) % 7 == 2, np.inf, COST)

CASES = {
    "balanced": Row(weights(N, 0), weights(M, 1), COST),
    "small epsilon": Row(weights(N, 0), weights(M, 1), COST, 0.03),
    "mass of three": Row(weights(N, 0, mass=3.0), weights(M, 1, mass=3.0), COST),
    "zero weights": Row(weights(N, 0, zero=1), weights(M, 1, zero=2), COST),
    "forbidden pairs": Row(weights(N, 0), weights(M, 1), FORBIDDEN),
    "both marginals relaxed": Row(weights(N, 0), weights(M, 1, mass=1.4), COST, 0.2, 0.7, 2.0),
    "one marginal relaxed": Row(weights(N, 0), weights(M, 1, mass=1.4), COST, 0.2, 0.7, INF),
}


def plan_by_newton(a, b, cost, epsilon, rho_a, rho_b):
    """The plan at the root of the gradient of the dual in (f, g), on the points that have weight."""
    rows, columns = np.flatnonzero(a > 0), np.flatnonzero(b > 0)
    a_, b_, c_ = a[rows], b[columns], cost[np.ix_(rows, columns)]
    z = np.zeros(len(rows) + len(columns))

    def at(z):
        f, g = z[: len(rows)], z[len(rows) :]
        return a_[:, None] * b_ * np.exp((f[:, None] + g - c_) / epsilon)

    for _ in range(500):
        plan = at(z)
        f, g = z[: len(rows)], z[len(rows) :]
        wanted = np.concatenate([a_ * np.exp(-f / rho_a), b_ * np.exp(-g / rho_b)])
        slope = wanted - np.concatenate([plan.sum(1), plan.sum(0)])
        if np.abs(slope).max() < 1e-15:
            break
        damping = np.concatenate([np.full(len(rows), 1 / rho_a), np.full(len(columns), 1 / rho_b)]) * wanted
        block = np.block([[np.diag(plan.sum(1)), plan], [plan.T, np.diag(plan.sum(0))]])
        step = np.linalg.lstsq(block / epsilon + np.diag(damping), slope, rcond=1e-12)[0]
        z = z + step * min(1.0, 2 * epsilon / max(np.abs(step).max(), 1e-300))
    out = np.zeros(cost.shape)
    out[np.ix_(rows, columns)] = at(z)
    return out


def divergence(p, q):
    positive = p > 0
    return np.sum(p[positive] * np.log(p[positive] / q[positive])) - p.sum() + q.sum()


def objective(plan, a, b, cost, epsilon, rho_a, rho_b):
    """What the plan minimises."""
    linear = np.sum(plan[plan > 0] * cost[plan > 0])
    total = linear + epsilon * divergence(plan, a[:, None] * b)
    for rho, sums, wanted in ((rho_a, plan.sum(1), a), (rho_b, plan.sum(0), b)):
        total += 0.0 if np.isinf(rho) else rho * divergence(sums, wanted)
    return total


def plan_of_two_by_two(a, b, cost, epsilon):
    """In closed form: its cross ratio is exp(-(c00 + c11 - c01 - c10)/epsilon)."""
    ratio = np.exp(-(cost[0, 0] + cost[1, 1] - cost[0, 1] - cost[1, 0]) / epsilon)
    # p (1 - a0 - b0 + p) = ratio (a0 - p) (b0 - p)
    roots = np.roots([1 - ratio, 1 - a[0] - b[0] + ratio * (a[0] + b[0]), -ratio * a[0] * b[0]])
    p = next(r.real for r in roots if -1e-12 < r.real < min(a[0], b[0]) + 1e-12)
    return np.array([[p, a[0] - p], [b[0] - p, 1 - a[0] - b[0] + p]])


ALL_BUT_ONE = (CASES["balanced"].a, CASES["balanced"].b, COST, 0.2)


def broken(place, value):
    return (*ALL_BUT_ONE[:place], value, *ALL_BUT_ONE[place + 1 :])


# id -> (arguments, keywords, pattern)
WRONG = {
    "negative weight": (broken(0, np.array([0.5, -0.5, 0.5, 0.5])), {}, r"a=[\s\S]*smallest entry of a is -0.5"),
    "no mass": (broken(1, np.zeros(M)), {}, r"b=[\s\S]*sum 0[\s\S]*not 0"),
    "nan weight": (broken(1, np.array([0.5, np.nan, 0.5])), {}, r"b=[\s\S]*sum nan"),
    "other mass": (broken(1, 2 * weights(M, 1)), {}, r"a sums to 1, b to 2[\s\S]*rho_a"),
    "nan cost": (broken(2, np.where(COST > 0.5, np.nan, COST)), {}, r"cost=[\s\S]*of 12 entries are nan or -inf"),
    "minus inf cost": (broken(2, np.where(COST > 0.5, -np.inf, COST)), {}, r"cost=[\s\S]*nan or -inf"),
    "transposed cost": (broken(2, COST.T), {}, r"cost \(3, 4\)[\s\S]*\(n, m\)"),
    "batch": (broken(0, np.ones((2, N))), {}, r"a has shape \(2, 4\)[\s\S]*vmap"),
    "no points": ((np.ones(0), np.ones(M), np.ones((0, M)), 0.2), {}, r"at least one point"),
    "complex cost": (broken(2, COST * 1j), {}, r"complex128[\s\S]*real"),
    "epsilon 0": (broken(3, 0.0), {}, r"epsilon is 0[\s\S]*positive"),
    "infinite epsilon": (broken(3, INF), {}, r"epsilon is inf"),
    "two epsilons": (broken(3, np.ones(2)), {}, r"epsilon has shape \(2,\)[\s\S]*one number"),
    "negative rho": (ALL_BUT_ONE, {"rho_b": -1.0}, r"rho_b is -1[\s\S]*exact marginal"),
    "init": (ALL_BUT_ONE, {"init": np.zeros(M)}, r"init has shape \(3,\), a \(4,\)"),
}
