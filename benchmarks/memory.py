"""How much memory the gradient of a fixed point takes: XLA's own account of temporaries, nothing is run."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import nsimplicit as nsi
from benchmarks.report import Table

ROWS, SIZE = 64, 1000
STEPS = (50, 500)
OLDEST = (0, 10)
STATE = jax.ShapeDtypeStruct((ROWS, SIZE), jnp.float32)
WEIGHT = jax.ShapeDtypeStruct((SIZE, SIZE), jnp.float32)
BIAS = jax.ShapeDtypeStruct((SIZE,), jnp.float32)


def cell(z, weight, bias):
    return jnp.tanh(z @ weight + bias)


def temporary_mb(fun) -> float:
    """Temporaries of the compiled program, in 10^6 bytes."""
    found = jax.jit(fun).lower(WEIGHT, BIAS, STATE).compile().memory_analysis()
    return float("nan") if found is None else found.temp_size_in_bytes / 1e6


def objective(z):
    return jnp.sum(z**2)


def ours(derivative):
    def loss(weight, bias, start, max_steps):
        found = nsi.fixed_point(cell, start, weight, bias, derivative=derivative, max_steps=max_steps)
        return objective(found.value)

    return loss


def unrolled(checkpoint):
    def loss(weight, bias, start, max_steps):
        derivative = nsi.derivatives.Unrolled(max_steps, checkpoint=checkpoint)
        return ours(derivative)(weight, bias, start, max_steps)

    return loss


def scan(weight, bias, start, max_steps):
    return objective(jax.lax.scan(lambda z, _: (cell(z, weight, bias), None), start, None, length=max_steps)[0])


def with_jaxopt(weight, bias, start, max_steps, **options):
    import jaxopt

    solver = jaxopt.FixedPointIteration(cell, maxiter=max_steps, tol=1e-5, **options)
    return objective(solver.run(start, weight, bias).params)


def with_optimistix(weight, bias, start, max_steps, adjoint):
    import optimistix

    found = optimistix.fixed_point(
        lambda z, args: cell(z, *args),
        optimistix.FixedPointIteration(rtol=1e-5, atol=1e-5),
        start,
        (weight, bias),
        max_steps=max_steps,
        adjoint=getattr(optimistix, adjoint)(),
        throw=False,
    )
    return objective(found.value)


ADJOINT = nsi.linear_solvers.FixedPointAdjoint(nsi.solvers.Picard())
REVERSE: dict[str, Callable[..., Any]] = {
    "Implicit": ours(nsi.derivatives.Implicit()),
    "Implicit, adjoint by Picard": ours(nsi.derivatives.Implicit(ADJOINT)),
    "Unrolled": unrolled(False),
    "Unrolled, checkpoint": unrolled(True),
    "Neumann(50)": ours(nsi.derivatives.Neumann(50)),
    "lax.scan": scan,
    "jaxopt, implicit": functools.partial(with_jaxopt, implicit_diff=True),
    "jaxopt, unrolled": functools.partial(with_jaxopt, implicit_diff=False, unroll=True),
    "optimistix, implicit": functools.partial(with_optimistix, adjoint="ImplicitAdjoint"),
    "optimistix, checkpoints": functools.partial(with_optimistix, adjoint="RecursiveCheckpointAdjoint"),
}


def promised(program: str, argnum: int, steps: int) -> float | None:
    """The most that is promised, in MB; what is differentiated is the weight (0) or the bias (1)."""
    few = steps == STEPS[0]
    if program.startswith("Implicit"):
        return 1.6
    if program == "Unrolled" and argnum == 0:
        oldest = tuple(map(int, jax.__version__.split(".")[:2])) <= OLDEST
        return (45 if few else 400) if oldest else (32 if few else 270)
    if program == "Unrolled, checkpoint":
        return ((10 if few else 18), (5.5 if few else 14))[argnum]
    return None


def forward(argnum, max_steps):
    """A tangent along the argument itself, by Piggyback."""
    loss = ours(nsi.derivatives.Piggyback())

    def tangent(*args):
        def along(x):
            moved = [*args, max_steps]
            moved[argnum] = x
            return loss(*moved)

        return jax.jvp(along, (args[argnum],), (args[argnum],))[1]

    return tangent


def measure() -> Table:
    table = Table(
        f"How much memory does a gradient take? z = tanh(z W + b), z {ROWS} x {SIZE}, float32: temporaries of the "
        "compiled program in MB. The gradient itself (4 MB in the weight) is an output and not among them."
    )
    for argnum, name in enumerate(("weight", "bias")):
        for program, loss in REVERSE.items():
            row: dict[str, Any] = {"program": program, "in": name, "mode": "reverse"}
            for steps in STEPS:
                try:
                    found = temporary_mb(jax.grad(functools.partial(loss, max_steps=steps), argnum))
                except Exception as refusal:
                    row["refused"] = f"{type(refusal).__name__}: {str(refusal).splitlines()[0]}"
                    break
                row[f"{steps} steps"] = found
                most = promised(program, argnum, steps)
                what = f"{program} in the {name}, {steps} steps, MB"
                row[f"promise at {steps}"] = "" if most is None else table.bound(what, found, most)
            table.rows.append(row)
        row = {"program": "Piggyback", "in": name, "mode": "forward"}
        few, many = (temporary_mb(forward(argnum, steps)) for steps in STEPS)
        row |= {f"{STEPS[0]} steps": few, f"{STEPS[1]} steps": many}
        row[f"promise at {STEPS[1]}"] = table.bound(f"Piggyback in the {name}, growth", many / few, 1.01)
        table.rows.append(row)
    return table
