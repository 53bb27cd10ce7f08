"""Look at one solve closely: does the solver solve its equation, and can the equation be differentiated?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from nsimplicit._errors import InputError, message
from nsimplicit._records import data, static
from nsimplicit._tree import Space, promote
from nsimplicit.implicit.drift import drift
from nsimplicit.implicit.equation import Equation, Problem, formulate
from nsimplicit.implicit.guard import check
from nsimplicit.implicit.guards import Off
from nsimplicit.implicit.kink_system import verdict
from nsimplicit.implicit.rule import Traced, trace_equation
from nsimplicit.implicit.unresolved import num_unresolved
from nsimplicit.linear_solvers.auto import DENSE_SIZE, choose
from nsimplicit.linear_solvers.dense import materialise
from nsimplicit.linear_solvers.operator import accepted_error, coarsest_eps

MAX_KINKS = 8
SAFETY = 3
"""Times the estimated drift: what its few random columns may miss."""
VERDICTS = {
    1: "fine",
    0: "ill conditioned",  # or "loose": which of the two the numbers say
    -1: "singular",
    -2: "unsolved",
    -3: "unconverged",
    -4: "unidentified",
    -5: "irregular",
}
SELECTIONS = {1: "every selection is regular", 0: "undecided, see nsi.certify", -1: "some selection is singular"}
ADVICE = {
    "fine": "Derivatives at this solution can be trusted.",
    "ill conditioned": "Some digits of the derivative are lost: use float64, or regularise the problem.",
    "loose": "Some digits of the derivative are lost: the forward solve is too loose. Tighten the solver's tolerance.",
    "singular": "No derivative exists here, or the equation has redundant unknowns. "
    "Regularise the problem, or choose what a failed derivative gives: guards.Solved(on_failure=...).",
    "unsolved": "The linear solver did not reach its tolerance: linear_solvers.Dense(), or a larger max_steps.",
    "unconverged": "The derivative would be that of another problem. Tighten the solver's tolerance, "
    "or check that the equation is the one it solves: same objective, same scaling.",
    "unidentified": "The solution is closer to a kink than to the equation's own solution, so the branch taken may be "
    "the wrong one, and the derivative far off. Tighten the solver's tolerance.",
    "irregular": "The system is invertible for the selection taken and singular for another: the implicit function "
    "theorem does not apply. nsi.certify(problem)(...) names the selection; guards.AllSelections() checks it in "
    "training code.",
}


@data
class Diagnosis:
    """What was found at one solution; prints as one screen. All quantities are dimensionless.

    Args:
        forward_residual: ‖E(z)‖ / (1 + ‖z‖), E the equation.
        distance: ‖M⁻¹E(z)‖ / (1 + ‖z‖): how far a Newton step says the equation's own solution is.
        linear_residual: backward error of that solve with M.
        drift: relative difference of the derivatives at z and at the end of the Newton step: how far the derivative
            is off because z is not exact. Estimated; means nothing where a kink is unresolved.
        condition: condition number of M; a lower bound beyond 512 unknowns.
        num_steps: products with M the solve took.
        num_kinks: number of active kinks: switches within sqrt(eps) of the largest operand.
        num_unresolved: number of kinks that the Newton step may cross.
        selections: whether every selection of the active kinks is regular: 1 yes, 0 undecided, -1 no.
        code: 1 fine, 0 digits lost (ill conditioned, or loose: z is too far off), -1 singular, -2 unsolved,
            -3 unconverged, -4 unidentified (a kink is unresolved), -5 irregular (another selection is singular).
        size: number of unknowns.
        name: what was looked at.
        linear_solver: what solved the tangent system.
        dtype: of the solution.
    """

    forward_residual: jax.Array
    distance: jax.Array
    linear_residual: jax.Array
    drift: jax.Array
    condition: jax.Array
    num_steps: jax.Array
    num_kinks: jax.Array
    num_unresolved: jax.Array
    selections: jax.Array
    code: jax.Array
    size: int = static()
    name: str = static()
    linear_solver: str = static()
    dtype: str = static()

    @property
    def derivative_error(self) -> jax.Array:
        """Relative error of the derivative: of its linear solve, or from z not being exact, whichever is more."""
        return jnp.maximum(*self._errors())

    def _errors(self) -> tuple[jax.Array, jax.Array]:
        solve = self.condition * (float(jnp.finfo(self.dtype).eps) + self.linear_residual)
        return solve, SAFETY * self.drift

    @property
    def verdict(self) -> str:
        """The word for ``code``; needs a concrete value."""
        if isinstance(self.code, Tracer):
            raise InputError(
                message(
                    "Diagnosis.verdict",
                    "the diagnosis is traced (inside jit, vmap or grad), so its verdict has no word yet.",
                    "A word cannot depend on values that are not known when tracing.",
                    "use .code, an integer array: 1 fine, 0 digits lost, below 0 not to be used",
                    "return the diagnosis from the jitted function and read it outside",
                )
            )
        solve, forward = self._errors()
        return "loose" if int(self.code) == 0 and float(forward) > float(solve) else VERDICTS[int(self.code)]

    def __str__(self) -> str:
        """One screen."""
        eps = float(jnp.finfo(self.dtype).eps)
        error = min(float(self.derivative_error), 1.0)
        agree = "solver and equation agree" if float(self.distance) <= eps**0.5 else "solver and equation DISAGREE"
        bound = "" if self.size <= DENSE_SIZE else ", from below"
        rows = [
            ("solution", f"{self.size} numbers, {self.dtype}"),
            ("forward residual", f"{float(self.forward_residual):8.1e}   |E(z)| / (1 + |z|)"),
            ("distance", f"{float(self.distance):8.1e}   to the equation's own solution: {agree}"),
            (
                "linear residual",
                f"{float(self.linear_residual):8.1e}   {self.linear_solver}, {int(self.num_steps)} products",
            ),
            ("condition", f"{float(self.condition):8.1e}   derivative good to about {error:.0e}{bound}"),
            ("kinks", self._kinks()),
            ("verdict", self.verdict),
        ]
        body = "\n".join(f"  {label:<17} {text}" for label, text in rows)
        return f"diagnosis of {self.name}\n{body}\n  {ADVICE[self.verdict]}"

    def _kinks(self) -> str:
        count = int(self.num_kinks)
        text = f"{count:8d}   active" + (f": {SELECTIONS[int(self.selections)]}" if count else "")
        return text + (f"; {int(self.num_unresolved)} unresolved" if int(self.num_unresolved) else "")

    def __repr__(self) -> str:
        """As ``str`` where the values are known."""
        return "Diagnosis(traced)" if isinstance(self.code, Tracer) else str(self)


def diagnose(problem: Problem | Callable[..., Any]) -> Callable[..., Diagnosis]:
    """Check a solve before trusting its derivative.

    Args:
        problem: a decorated solver, to be called as it is: ``diagnose(solver)(init, *args)``; a
            splitting: ``diagnose(T)(z)``; or an optimality function: ``diagnose(F)(solution, *args)``.

    Returns:
        A function returning a :class:`Diagnosis`. It may be jitted; the verdict is then ``code``.

    Cost:
        One Newton step and eight tangent solves; up to 512 unknowns also the singular values of M.

    Example:
        >>> import jax.numpy as jnp, nsimplicit as nsi
        >>> nsi.diagnose(lambda x, a: x**2 - a)(jnp.array([2.0, 3.0]), jnp.array([4.0, 9.0])).verdict
        'fine'
        >>> nsi.diagnose(lambda x, a: x**2 - a)(jnp.array([2.0, 0.0]), jnp.array([4.0, 0.0])).verdict
        'singular'
        >>> nsi.diagnose(lambda x, a: x**2 - a)(jnp.array([2.0, 3.5]), jnp.array([4.0, 9.0])).verdict
        'unconverged'
    """

    def look(*args: Any, **kwargs: Any) -> Diagnosis:
        z, equation = formulate(problem, args, kwargs)
        name = getattr(problem, "__name__", type(problem).__name__)
        return _examine(equation, jax.tree.map(jnp.asarray, z), name)

    return look


def _examine(equation: Equation, z: Any, name: str) -> Diagnosis:
    traced, vector, _ = trace_equation(equation, promote(z), Space(), f"diagnose({name})")
    # One compiled program, with the data as its arguments: constants inside would be folded by XLA.
    return jax.jit(lambda consts, z: _measure(traced, consts, z, name))(traced.consts, vector)


def _measure(traced: Traced, consts: Any, vector: Any, name: str) -> Diagnosis:
    space = traced.space
    residual, operator = traced.linearise(consts, vector)
    b = traced.equation.right_hand_side(residual)
    solver = choose(operator, b)
    solution = solver.solve(operator, b)
    checked = check(Off(), operator, b, solution)
    size = sum(x.size for x in jax.tree.leaves(vector))
    eps = coarsest_eps(vector)
    condition = checked.evidence.condition
    if size <= DENSE_SIZE:
        values = jnp.linalg.svd(materialise(operator, b), compute_uv=False)
        condition = values[0] / values[-1]
    scale = 1 + space.norm(vector)
    distance = space.norm(checked.value) / scale
    error = checked.evidence.backward_error
    again = solution.factors(transpose=False)
    selections, num_kinks = verdict(traced, consts, vector, solver, MAX_KINKS, eps**0.5, again)
    moved = drift(traced, consts, vector, checked.value, solver, again)
    unresolved = num_unresolved(traced, consts, vector, checked.value, eps**0.5)
    tests = [
        (~(condition * eps <= 0.1), -1),
        (~(error <= accepted_error(eps)), -2),
        (~(distance <= eps**0.5), -3),
        (unresolved > 0, -4),
        (~(SAFETY * moved <= 0.1), -3),
        (selections < 0, -5),
        ((condition * eps > eps**0.5) | (SAFETY * moved > eps**0.5), 0),
    ]
    code = jnp.select([t for t, _ in tests], [jnp.asarray(c) for _, c in tests], jnp.asarray(1))
    return Diagnosis(
        space.norm(residual) / scale,
        distance,
        error,
        moved,
        condition,
        solution.num_steps,
        num_kinks,
        unresolved,
        selections,
        code,
        size=size,
        name=name,
        linear_solver=type(solver).__name__,
        dtype=str(jnp.result_type(*jax.tree.leaves(vector))),
    )
