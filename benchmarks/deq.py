"""One training step of a deep equilibrium layer: value and gradient through z = act(z W + x U + b).

All entrants run the same iteration from zero, stop by the same test, ‖T(z) - z‖ <= tol (1 + ‖z‖) in every sample, and
solve the adjoint equation u = u T'(z) + g to ‖residual‖ <= tol (‖g‖ + ‖u‖). Where a library only knows a test on the
whole batch, its tolerance is set so that it makes as many steps; the steps stand in the table. The gradient is compared
with one in float64. torchdeq runs in a process of its own (``deq_torch``).
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import nsimplicit as nsi
from benchmarks.deq_by_hand import TOL, adjoint, anderson, by_hand, picard
from benchmarks.deq_torch import Torchdeq
from benchmarks.race import Entrant, absent, race
from benchmarks.report import Table

BATCH, WIDTH, INPUTS = 64, 512, 256
# in JAX, in NumPy, and its derivative
ACTIVATIONS = {
    "tanh": (jnp.tanh, lambda v: np.tanh(v), lambda v: 1 - np.tanh(v) ** 2),
    "relu": (jax.nn.relu, lambda v: np.maximum(v, 0), lambda v: v > 0),
}


def problem(batch=BATCH, width=WIDTH, inputs=INPUTS):
    """W is 0.9 times an orthogonal matrix: no direction contracts faster than another."""
    rng = np.random.default_rng(0)
    W = 0.9 * np.linalg.qr(rng.normal(size=(width, width)))[0]
    U = rng.normal(size=(inputs, width)) / np.sqrt(inputs)
    parameters = {"W": W, "U": U, "b": 0.1 * rng.normal(size=width)}
    return parameters, rng.normal(size=(batch, inputs)), rng.normal(size=(batch, width))


def exact(act, slope, P, x, y):
    """The gradient in float64, NumPy, far past convergence."""
    inner = x @ P["U"] + P["b"]
    z = functools.reduce(lambda z, _: act(z @ P["W"] + inner), range(150), 0 * inner)
    D, g = slope(z @ P["W"] + inner), 2 * (z - y) / z.size
    u = functools.reduce(lambda u, _: (u * D) @ P["W"].T + g, range(150), g) * D
    return {"W": z.T @ u, "U": x.T @ u, "b": u.sum(0)}


def error_against(gradient):
    def flat(gradient):
        return np.concatenate([np.asarray(gradient[k], np.float64).ravel() for k in "WUb"])

    truth = flat(gradient)
    return lambda out: float(np.linalg.norm(flat(out[1]) - truth) / np.linalg.norm(truth))


# --- libraries


def jaxopt_adjoint(matvec, g):
    """The adjoint by hand for jaxopt, which hands over T' - I."""
    return -adjoint(lambda u: u + matvec(u), g)


def same_adjoint():
    return nsi.linear_solvers.FixedPointAdjoint(nsi.solvers.Picard(), rtol=TOL)  # pyright: ignore[reportArgumentType]


def ours(act, solver, linear_solver, guard: nsi.guards.Guard = nsi.guards.Solved()):
    derivative = nsi.derivatives.Implicit(linear_solver, guard)

    def layer(W, inner):
        start = jnp.zeros_like(inner)
        found = nsi.fixed_point(
            lambda z: act(z @ W + inner), start, solver=solver, derivative=derivative, batch_axis=0, tol=TOL
        )
        return found.value, found.num_steps.max()

    return layer


def through_jaxopt(act, method, **options):
    def layer(W, inner):
        import jaxopt

        tol = TOL * inner.size**0.5 / 4  # its test is on the whole batch and absolute
        solver = getattr(jaxopt, method)(lambda z, W, inner: act(z @ W + inner), tol=tol, maxiter=1000, **options)
        z, state = solver.run(jnp.zeros_like(inner), W, inner)
        return z, state.iter_num

    return layer


def through_optimistix(act, linear_solver):
    def layer(W, inner):
        import lineax
        import optimistix

        adjoint = optimistix.ImplicitAdjoint(linear_solver(lineax, rtol=TOL, atol=1e-3 * TOL))
        solver = optimistix.FixedPointIteration(rtol=TOL / 3, atol=TOL / 3, norm=optimistix.rms_norm)
        start = jnp.zeros_like(inner)

        def cell(z, args):
            return act(z @ args[0] + args[1])

        found = optimistix.fixed_point(cell, solver, start, (W, inner), adjoint=adjoint, max_steps=1000)
        return found.value, found.stats["num_steps"]

    return layer


def step(layer, x, y):
    """A training step's work: the loss and its gradient in W, U and b."""

    def loss(P):
        z, steps = layer(P["W"], x @ P["U"] + P["b"])
        return jnp.mean((z - y) ** 2), steps

    return jax.value_and_grad(loss, has_aux=True)


# --- the table

# forward iteration: by hand, this package's, jaxopt's, torchdeq's
METHODS = {
    "Picard": (picard, nsi.solvers.Picard(), ("FixedPointIteration", {}), "fixed_point_iter"),
    "Anderson": (anderson, nsi.solvers.Anderson(5), ("AndersonAcceleration", {"history_size": 5}), "anderson"),
}


def layers(word, method):
    """The layer as each library has it; a row of the table each."""
    act, (hand, solver, (theirs, options), _) = ACTIVATIONS[word][0], METHODS[method]
    yield "by hand", by_hand(act, hand)
    yield "nsimplicit", ours(act, solver, same_adjoint())
    yield "nsimplicit, guard off", ours(act, solver, same_adjoint(), nsi.guards.Off())
    yield "jaxopt", through_jaxopt(act, theirs, implicit_diff_solve=jaxopt_adjoint, **options)
    if (word, method) == ("tanh", "Picard"):  # other ways to solve the adjoint equation
        yield "nsimplicit, GMRES", ours(act, solver, nsi.linear_solvers.GMRES(20, TOL))
        yield "jaxopt, default", through_jaxopt(act, theirs)
        yield "optimistix, GMRES", through_optimistix(act, lambda lx, **tol: lx.GMRES(restart=20, **tol))
        yield "optimistix, normal CG", through_optimistix(act, lambda lx, **tol: lx.Normal(lx.CG(**tol)))


def block(table, word, method, torch):
    P, x, y = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), problem())
    _, act, slope = ACTIVATIONS[word]
    error = error_against(exact(act, slope, *problem()))
    steps = {}

    def judge(name):
        def judged(out):
            steps[name] = int(out[0][1])
            return error(out)

        return judged

    entrants = [Entrant(name, step(layer, x, y), (P,), judge(name)) for name, layer in layers(word, method)]
    if isinstance(torch, Exception):
        entrants.append(absent("torchdeq", torch, (P,)))
    else:
        solver = METHODS[method][3]
        out = torch.gradient(solver, word)
        call = lambda _: torch.run(solver, word)  # noqa: E731
        entrants.append(Entrant("torchdeq", call, (P,), lambda _: judge("torchdeq")(out), jitted=False))
    # Threads of one runtime spin for a moment after their work, which the other one would feel; and whoever comes
    # first after torch finds cold caches: a second run by hand, which is not shown.
    pause = Entrant("", lambda _: time.sleep(0.02), (P,), jitted=False)
    again = Entrant("", entrants[0].call, (P,))
    rows = race([*entrants[:-1], pause, entrants[-1], pause, again])
    rows = {row["entrant"]: row for row in rows if row["entrant"]}
    usual = rows["by hand"]["median ms"]
    for name, row in rows.items():
        row["steps"] = steps.get(name, "")
        row["times by hand"] = row["median ms"] / usual if row["median ms"] != "" else ""
        row["bound"] = ""
        table.rows.append({"cell": word, "method": method} | row)
    return {row["entrant"]: row for row in table.rows if (row["cell"], row["method"]) == (word, method)}


def measure() -> Table:
    table = Table(f"A training step of a deep equilibrium layer: batch {BATCH}, width {WIDTH}, float32, one adjoint.")
    try:
        torch = Torchdeq(*problem(), TOL)
    except ImportError as missing:
        torch = missing
    for word in ACTIVATIONS:
        for method in METHODS:
            rows = block(table, word, method, torch)
            ours, peer = rows["nsimplicit"], rows["jaxopt"]
            what = f"{word}, {method}"
            kept = [table.bound(f"{what}: times by hand", ours["times by hand"], 1.05)]
            if rows["torchdeq"]["median ms"] != "":
                ratio = ours["median ms"] / rows["torchdeq"]["median ms"]
                kept.append("of torchdeq " + table.bound(f"{what}: times torchdeq", ratio, round(1 / 1.7, 3)))
            ratio = ours["compile ms"] / peer["compile ms"] if peer["compile ms"] else 0.0
            kept.append("compile / jaxopt " + table.bound(f"{what}: compile / jaxopt", ratio, 2.0))
            table.bound(f"{what}: compile ms", ours["compile ms"], 1000.0)
            ours["bound"] = "; ".join(kept)
    if not isinstance(torch, Exception):
        torch.close()
    return table
