"""What a linear solver is given: a matrix known by its products, and what is known of its shape."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import config
from nsimplicit._tree import Space, blank_like, subtract

Vector = Any
Product = Callable[[Vector], Vector]


@config
class General:
    """Nothing is known of the matrix."""


@config
class Symmetric:
    """The matrix equals its transpose in the Euclidean product of the raveled vectors."""


@config
class ProxGradient:
    """The matrix is I - D(I - step·H), or its transpose, with D and H symmetric and 0 <= D <= I.

    Args:
        prox: the product with D, the Jacobian of the prox.
        forward: the product with I - step·H, the Jacobian of the gradient step.
        transposed: whether the matrix is the transpose, I - (I - step·H)D.
        block: ``index -> step·H[index, index]`` where the columns of H can be had, and D is diagonal;
            vectors are then single arrays ``(n,)``.
    """

    prox: Product
    forward: Product
    transposed: bool = False
    block: Callable[[jax.Array], jax.Array] | None = None


@config
class Saddle:
    """The matrix is I - D(I - K), or its transpose, K being that of a program with multipliers.

    K = [[p P, p Aᵀ, p Gᵀ], [-a A, 0, 0], [-g G, 0, 0]] with P symmetric and positive semidefinite, D diagonal,
    0 <= D <= I; vectors are triples (x, y, z).

    Args:
        weights: the diagonal of D, a triple; that of y is one.
        matrices: (P, A, G).
        steps: (p, a, g), positive: a number, and one for each row of A and of G.
        transposed: whether the matrix is the transpose.
    """

    weights: tuple[jax.Array, jax.Array, jax.Array]
    matrices: tuple[jax.Array, jax.Array, jax.Array]
    steps: tuple[jax.Array, jax.Array, jax.Array]
    transposed: bool = False


Structure = General | Symmetric | ProxGradient | Saddle


@config
class Operator:
    """A square matrix M given by products.

    Args:
        matvec: v -> M v on pytrees of real arrays.
        structure: what is known of M.
        space: the inner product of the vectors; with a batch axis M is block diagonal.
    """

    matvec: Product
    structure: Structure = General()
    space: Space = Space()

    def transpose(self, rmatvec: Product) -> Operator:
        """The transpose of M, from its product; structure that is known turns with it."""
        match self.structure:
            case ProxGradient() | Saddle() as structure:
                turned = dataclasses.replace(structure, transposed=not structure.transposed)
                return Operator(rmatvec, turned, self.space)
            case structure:
                return Operator(rmatvec, structure, self.space)


@config
class LinearSolution:
    """What a linear solver returns; every number has one entry per lane.

    Args:
        value: x with M x = b, as well as the solver could.
        num_steps: products with M that were made.
        norm: an estimate of the spectral norm of M, from below.
        condition: an estimate of its condition number, from below; 0 where only the answer tells of it
            (:func:`seen`), nan where nothing is known.
        again: ``(v, transpose)`` solves with M, or its transpose, by the factors at hand; None without factors.
        followed: ‖b - M x‖ as a recurrence followed it, and what rounding may have added; None without one.
    """

    value: Vector
    num_steps: jax.Array
    norm: jax.Array
    condition: jax.Array
    again: Callable[[Vector, bool], Vector] | None = None
    followed: jax.Array | None = None

    def factors(self, transpose: bool) -> Callable[[Vector], Vector] | None:
        """Solve with M once more, or with its transpose; None without factors."""
        again = self.again
        return None if again is None else lambda v: again(v, transpose)


class LinearSolver(abc.ABC):
    """Solves M x = b by products. Configuration: frozen, hashable, Python scalars only."""

    structures: ClassVar[tuple[type, ...]] = (General, Symmetric, ProxGradient, Saddle)
    rtol = None  # no annotation: a constant, which the field of an iterative solver replaces

    @abc.abstractmethod
    def solve(self, operator: Operator, b: Vector, guess: Vector | None = None) -> LinearSolution:
        """x with M x = b, starting at ``guess`` where the method iterates."""


def start(operator: Operator, b: Vector, guess: Vector | None) -> tuple[Vector, Vector]:
    """Where an iteration starts, and the residual there: the guess, or zero, which costs no product."""
    if guess is None:
        return blank_like(b), b
    return guess, subtract(b, operator.matvec(guess))


def loop(space: Space, active: Callable[[Any], jax.Array], step: Callable[..., Any], vectors: Any, numbers: Any) -> Any:
    """Step while a lane is active; a lane that is not stays as it is.

    A lane alone needs no such care: the loop ends with it, and ``vmap`` keeps what it had.

    Args:
        space: says which axis the lanes are.
        active: ``numbers -> `` one truth per lane.
        step: ``(vectors, numbers) -> (vectors, numbers)``, of every lane.
        vectors: a tuple of vectors.
        numbers: a tuple of arrays with one entry per lane.

    Returns:
        The last vectors and numbers.
    """

    def body(carry: tuple[Any, Any]) -> tuple[Any, Any]:
        new = step(*carry)
        if space.batch_axis is None:
            return new
        on = active(carry[1])
        return space.where(on, new[0], carry[0]), jax.tree.map(lambda x, y: jnp.where(on, x, y), new[1], carry[1])

    return lax.while_loop(lambda c: jnp.any(active(c[1])), body, (vectors, numbers))


def backward_error(operator: Operator, b: Vector, solution: LinearSolution) -> jax.Array:
    """‖b - M x‖ / (‖M‖‖x‖ + ‖b‖), per lane, with the solver's estimate of ‖M‖ from below; one product."""
    space, x = operator.space, solution.value
    residual = space.norm(subtract(b, operator.matvec(x)))
    return quotient(residual, solution.norm * space.norm(x) + space.norm(b))


def accepted_error(eps: Any, rtol: float | None = None) -> Any:
    """The backward error that passes: ten times what a solver aims at, eps^(3/4) or its coarser ``rtol``."""
    return 10 * max(eps**0.75, rtol or 0.0)


def seen(space: Space, x: Vector, b: Vector, norm: jax.Array) -> jax.Array:
    """The condition number from below, by what a solution shows of it: ‖M‖‖x‖/‖b‖, at least 1."""
    return jnp.fmax(1.0, quotient(norm * space.norm(x), space.norm(b))).astype(norm.dtype)


def condition_number(space: Space, b: Vector, solution: LinearSolution) -> jax.Array:
    """The solver's estimate, or what the solution shows."""
    shown = seen(space, solution.value, b, solution.norm)
    return jnp.where(solution.condition == 0, shown, solution.condition)


def default_tolerance(b: Vector, rtol: float | None) -> float:
    """``rtol``, or eps^(3/4) of the coarsest dtype in ``b``: 1.8e-12 and 6.4e-6.

    Not less than 8 eps: below it a recurrence drives its own residual to zero and then goes astray.
    """
    eps = coarsest_eps(b)
    return eps**0.75 if rtol is None else max(rtol, 8 * eps)


def coarsest_eps(b: Vector) -> float:
    """The unit roundoff of the least precise leaf."""
    return max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(b))


def unknowns(b: Vector, space: Space) -> int:
    """The number of entries of one lane of ``b``, as far as this device holds them."""
    size = sum(x.size for x in jax.tree.leaves(b))
    return size if space.batch_axis is None else size // max(1, jax.tree.leaves(b)[0].shape[space.batch_axis])


def quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, and 0 where b is 0: the convention under which a zero right-hand side needs no step."""
    none = lax.eq(b, lax.full_like(b, 0))
    return lax.select(none, lax.full_like(a, 0), lax.div(a, lax.select(none, lax.full_like(b, 1), b)))
