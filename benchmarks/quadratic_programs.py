"""A thousand small quadratic programs, min ½ z'Pz + q'z over z >= 0 in 5 variables, solved and differentiated by vmap.

The truth is the best of the 32 active sets, in closed form; ``off`` counts the gradients in q that differ from it by
more than 1e-3. Then 256 programs of 50 variables: with 50 inequalities; and the general path, with 10 equalities, 50
inequalities, bounds on both sides and a P of half rank. There the truth is the closed form of one active set, of which
NumPy has checked that it satisfies the optimality conditions. Part of ``benchmarks.programs``.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks import cvxpy_layers
from benchmarks.race import Entrant, at_equal_error, judge, race

PROGRAMS, VARIABLES = 1000, 5
TARGET = 1e-5
PATIENCE = 20.0  # seconds for all calls of an entrant, of which there are three at least


def quadratic_programs():
    """P, q, a target, and the gradient of ½‖z - target‖² in q by the best active set."""
    rng = np.random.default_rng(0)
    A, y = rng.normal(size=(PROGRAMS, 2 * VARIABLES, VARIABLES)), rng.normal(size=(PROGRAMS, 2 * VARIABLES))
    P, q = np.einsum("bij,bik->bjk", A, A), -np.einsum("bij,bi->bj", A, y)
    target = rng.normal(size=q.shape)
    best, value = np.zeros_like(q), np.zeros(PROGRAMS)
    gradient = np.zeros_like(q)
    for free in map(np.flatnonzero, itertools.product((0, 1), repeat=VARIABLES)):
        if not free.size:
            continue
        inverse = np.linalg.inv(P[:, free[:, None], free])
        z = np.zeros_like(q)
        z[:, free] = -np.einsum("bij,bj->bi", inverse, q[:, free])
        cost = np.einsum("bi,bij,bj->b", z, P, z) / 2 + (q * z).sum(1)
        better = (z >= 0).all(1) & (cost < value)
        slope = np.zeros_like(q)
        slope[:, free] = -np.einsum("bij,bj->bi", inverse, (z - target)[:, free])
        best[better], value[better], gradient[better] = z[better], cost[better], slope[better]
    return P, q, target, gradient


def layer(P, q):
    return nsi.layers.qp(P, q, bounds=(0.0, None)).value


def all_programs(one):
    """The gradients in q of all programs, from ``one(P, q) -> z``."""

    def loss(q, P, target):
        return jnp.sum((one(P, q) - target) ** 2) / 2

    return lambda P, q, target: jax.vmap(jax.grad(loss))(q, P, target)


def ours_quadratic(solver, max_steps=5000):
    def one(P, q):
        T = nsi.splittings.ForwardBackward(nsi.prox.Quadratic(P, q), nsi.prox.Nonnegative())
        return nsi.fixed_point(T, jnp.zeros_like(q), solver=solver, max_steps=max_steps).value

    return all_programs(one)


def complementarity(P, q):
    """Newton's method on the equation itself: z = max(z - (Pz + q), 0), each row scaled by the diagonal."""

    def F(z, P, q):
        return z - nsi.relu(z - (P @ z + q) / jnp.diagonal(P))

    return nsi.root(F, jnp.zeros_like(q), P, q).value


def through_qpax(kappa):
    import qpax

    def one(P, q):
        empty, eye = jnp.zeros((0, VARIABLES)), jnp.eye(VARIABLES)
        return qpax.solve_qp_primal(P, q, empty, empty[:, 0], -eye, 0 * q, target_kappa=kappa)

    return all_programs(one)


def projected(tol):
    import jaxopt

    def one(P, q):
        def cost(z, hyper):
            return z @ hyper[0] @ z / 2 + hyper[1] @ z

        # With its line search it takes twenty times as long; a step it can be told is one over the largest eigenvalue.
        step = 1 / jax.lax.stop_gradient(jnp.linalg.eigvalsh(P)[-1])
        onto = jaxopt.projection.projection_non_negative
        solver = jaxopt.ProjectedGradient(cost, onto, stepsize=lambda _: step, tol=tol, maxiter=5000)
        return solver.run(jnp.zeros_like(q), None, (P, q)).params

    return all_programs(one)


def through_osqp(tol):
    import jaxopt

    def one(P, q):
        solution = jaxopt.OSQP(tol=tol, maxiter=20000).run(None, (P, q), None, (-jnp.eye(VARIABLES), 0 * q)).params
        return solution.primal

    return all_programs(one)


def nonnegative(table):
    P, q, target, truth = quadratic_programs()
    args, off = tuple(map(jnp.asarray, (P, q, target))), {}

    def error(out, name=""):
        gap = np.abs(np.asarray(out) - truth).max(1)
        off[name] = int((~(gap <= 1e-3)).sum())
        return float(gap.max())

    entrants = [
        Entrant("nsimplicit", all_programs(complementarity), args, note="semismooth Newton on the residual"),
        Entrant("nsimplicit, layers.qp", all_programs(layer), args),
        Entrant("nsimplicit, forward-backward, Newton", ours_quadratic(nsi.solvers.SemismoothNewton()), args),
        Entrant("nsimplicit, forward-backward, Nesterov", ours_quadratic(nsi.solvers.Nesterov()), args),
        Entrant("qpax, default", lambda *args: through_qpax(1e-3)(*args), args),
    ]
    families = {
        "qpax": (through_qpax, (1e-5, 1e-7, 1e-9, 1e-11)),
        "jaxopt, ProjectedGradient": (projected, (1e-6, 1e-8, 1e-10)),
        "jaxopt, OSQP": (through_osqp, (1e-5, 1e-7, 1e-9)),
    }
    for name, (make, settings) in families.items():
        found = at_equal_error(lambda s, make=make: lambda *a: make(s)(*a), settings, args, error, TARGET, name=name)
        entrants.append(found)
    entrants.append(cvxpy_layers.nonnegative(P, q, target))
    rows = race(scored(entrants, error), compiles=1, seconds=PATIENCE)
    for row in rows:
        row["off"] = off.get(row["entrant"], "")
    judge(table, "nonnegative least squares", rows, TARGET, None)
    ours = rows[0]
    ours["bound"] = "off by more than 1e-3: " + table.bound(
        "nonnegative least squares, wrong gradients", ours["off"], 0
    )
    return [{"problem": "nonnegative least squares", "n": VARIABLES} | row for row in rows]


def scored(entrants, error):
    """The entrants, each with its errors counted under its name."""
    return [dataclasses.replace(e, error=functools.partial(error, name=e.name)) for e in entrants]


# --- 256 programs of 50 variables

LANES, SIZE = 256, 50


def large_programs(kind):
    """The data of a kind, and a target: P, q, A, b, G, h, the bound on |x| or None."""
    rng = np.random.default_rng(1)
    general = kind == "general path"
    root = rng.normal(size=(LANES, SIZE, SIZE // 2 if general else SIZE))
    P = root @ root.transpose(0, 2, 1) / SIZE + (0 if general else 0.1 * np.eye(SIZE))
    q, x = rng.normal(size=(LANES, SIZE)), 0.1 * rng.normal(size=(LANES, SIZE))
    A, G = rng.normal(size=(LANES, 10 if general else 0, SIZE)), rng.normal(size=(LANES, SIZE, SIZE))
    b, h = np.einsum("bij,bj->bi", A, x), np.einsum("bij,bj->bi", G, x) + rng.uniform(size=(LANES, SIZE))
    return (P, q, A, b, G, h), rng.normal(size=q.shape), 1.0 if general else None


def stacked(G, h, bound):
    """All inequalities as rows, in JAX or NumPy."""
    if bound is None:
        return G, h
    eye = np.eye(SIZE)
    return jnp.concatenate([G, eye, -eye]), jnp.concatenate([h, jnp.full(2 * SIZE, bound)])


def by_layer(bound):
    bounds = None if bound is None else (-bound, bound)
    return lambda P, q, A, b, G, h: nsi.layers.qp(P, q, eq=(A, b), ineq=(G, h), bounds=bounds).value


def by_qpax(bound, kappa):
    import qpax

    return lambda P, q, A, b, G, h: qpax.solve_qp_primal(P, q, A, b, *stacked(G, h, bound), target_kappa=kappa)


def by_osqp(tol):
    """Without equalities and bounds."""
    import jaxopt

    solver = jaxopt.OSQP(tol=tol, maxiter=20000)
    return lambda P, q, A, b, G, h: solver.run(None, (P, q), None, (G, h)).params.primal


def gradients(one):
    def loss(q, P, A, b, G, h, target):
        return jnp.sum((one(P, q, A, b, G, h) - target) ** 2) / 2

    return lambda P, q, A, b, G, h, target: jax.vmap(jax.grad(loss))(q, P, A, b, G, h, target)


def closed_form(data, bound, target, guess):
    """The gradients in q, from the constraints that are active at a guess; NumPy checks that it is a solution."""
    out = np.zeros_like(target)
    for lane, (P, q, A, b, G, h) in enumerate(zip(*data, strict=True)):
        C, d = map(np.asarray, stacked(G, h, bound))
        active = C @ guess[lane] > d - 1e-6
        R = np.vstack([A, C[active]])
        K = np.block([[P, R.T], [R, np.zeros((len(R), len(R)))]])
        z = np.linalg.solve(K, np.concatenate([-q, b, d[active]]))
        assert (C @ z[:SIZE] <= d + 1e-9).all() and (z[SIZE + len(b) :] >= 0).all(), f"program {lane} is not solved"
        out[lane] = -np.linalg.solve(K, np.append(z[:SIZE] - target[lane], np.zeros(len(R))))[:SIZE]
    return out


def large(table, kind):
    data, target, bound = large_programs(kind)
    guess = np.asarray(jax.jit(jax.vmap(by_layer(bound)))(*data))
    truth, args, off = closed_form(data, bound, target, guess), tuple(map(jnp.asarray, (*data, target))), {}

    def error(out, name=""):
        gap = np.abs(np.asarray(out) - truth).max(1)
        off[name] = int((~(gap <= 1e-3)).sum())
        return float(gap.max())

    def qpax(kappa):
        return lambda *args: gradients(by_qpax(bound, kappa))(*args)

    def osqp(tol):
        return lambda *args: gradients(by_osqp(tol))(*args)

    entrants = [
        Entrant("nsimplicit", gradients(by_layer(bound)), args, note="layers.qp"),
        Entrant("qpax, default", qpax(1e-3), args),
        at_equal_error(qpax, (1e-5, 1e-7, 1e-9, 1e-11), args, error, TARGET, name="qpax"),
    ]
    if bound is None:  # else a call of these takes minutes
        P, q, _, _, G, h = data
        entrants.append(at_equal_error(osqp, (1e-3, 1e-6), args, error, TARGET, name="jaxopt, OSQP"))
        entrants.append(cvxpy_layers.inequalities(P, q, G, h, target))
    rows = race(scored(entrants, error), repeats=7, compiles=1, seconds=PATIENCE)
    for row in rows:
        row["off"] = off.get(row["entrant"], "")
    judge(table, kind, rows, TARGET, None)
    rows[0]["bound"] = "off by more than 1e-3: " + table.bound(f"{kind}, wrong gradients", rows[0]["off"], 0)
    return [{"problem": kind, "n": SIZE} | row for row in rows]
