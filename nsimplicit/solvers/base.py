"""What a solver is: a way from one iterate to the next, on vectors with any number of lanes."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from nsimplicit._records import data
from nsimplicit._tree import Space, blank, subtract
from nsimplicit.implicit.process import Bound, Outcome
from nsimplicit.linear_solvers.operator import Vector


@data
class State:
    """The memory of an iteration.

    Args:
        z: the next point to evaluate.
        last: T at the last evaluated point (for a root: that point). It is what a solve returns,
            so a solve always ends with one plain application of T: extrapolation and mixing would
            destroy the exact zeros a prox has just made. None where it is z: a loop carries it once.
        residual: ‖T(z) - z‖ / (1 + ‖z‖) at that point, per lane.
        vectors: further vectors like z.
        stacks: vectors with a leading memory axis.
        numbers: arrays with one entry per lane, or one for all.
    """

    z: Vector
    last: Vector | None
    residual: jax.Array
    vectors: tuple[Vector, ...] = ()
    stacks: tuple[Vector, ...] = ()
    numbers: tuple[jax.Array, ...] = ()

    @property
    def image(self) -> Vector:
        """T at the last evaluated point."""
        return self.z if self.last is None else self.last


def freeze(space: Space, active: jax.Array, new: State, old: State) -> State:
    """``new`` in the active lanes; a finished lane keeps what it will be asked for, and never reads the rest.

    A lane alone is active as long as there is a next step.
    """
    if space.batch_axis is None:
        return new

    def both(a: Any, b: Any) -> Any:
        return space.where(active, a, b)

    z, last, residual = both(new.z, old.z), both(new.last, old.last), jnp.where(active, new.residual, old.residual)
    return dataclasses.replace(new, z=z, last=last, residual=residual)


class Solver(abc.ABC):
    """An iteration for T(z) = z or F(z) = 0. Configuration: frozen, hashable, Python scalars only.

    ``contracts`` says that the iteration follows a map T meant to contract; Newton's does not.
    """

    contracts: ClassVar[bool] = True

    @abc.abstractmethod
    def init(self, problem: Bound, z: Vector, space: Space) -> State:
        """The state before the first step."""

    @abc.abstractmethod
    def step(self, problem: Bound, state: State, space: Space) -> State:
        """One step: evaluates the equation at ``state.z``."""

    @abc.abstractmethod
    def tail(self, problem: Bound, z: Vector, damping: float) -> Vector:
        """One memoryless step from z, without safeguards, for modes that differentiate the last steps."""

    def iterate(self, problem: Bound, z: Vector, space: Space, *, tol: Any, max_steps: Any) -> Outcome:
        """Step until ``residual <= tol`` in every lane: the one loop.

        A lane stops when its residual is at most ``tol``, when it is nan, or after ``max_steps``;
        stopped lanes are frozen, so each lane's answer and count are what they would be alone.

        Args:
            problem: the equation, without derivative.
            z: where to start.
            space: lanes and mesh axes of z.
            tol: relative: ‖T(z) - z‖ <= tol·(unit + ‖z‖), or ‖F(z)‖, with the unit of the problem. May be traced.
            max_steps: largest number of evaluated steps. May be traced.

        Returns:
            The outcome, with one residual, count and verdict per lane.
        """
        state = self.init(problem, z, space)
        steps = (jnp.isnan(state.residual) * 0).astype(jnp.int32)

        def active(c: tuple[State, jax.Array]) -> jax.Array:
            state, steps = c
            return (state.residual > tol) & (steps < max_steps)

        def body(c: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
            state, steps = c
            on = active(c)
            return freeze(space, on, self.step(problem, state, space), state), steps + on.astype(steps.dtype)

        state, steps = lax.while_loop(lambda c: jnp.any(active(c)), body, (state, steps))
        return Outcome(state.image, state.residual, steps, state.residual <= tol)


class MapSolver(Solver):
    """A solver that follows a contraction T; without memory its step is the damped plain one."""

    def tail(self, problem: Bound, z: Vector, damping: float) -> Vector:
        """z + damping·(T(z) - z)."""
        return jax.tree.map(lambda x, y: x + damping * (y - x), z, problem.map(z))


def start(z: Vector, space: Space) -> State:
    """A state at z with nothing evaluated; lanes and mesh axes come from z."""
    return State(z, z, jnp.full_like(relative(space, z, z), jnp.inf))


def remember(z: Vector, space: Space, memory: int) -> tuple[State, jax.Array, jax.Array]:
    """A state at z with two empty vectors and two empty stacks of so many; a zero for each lane, and one for all."""
    state, nothing = start(z, space), jax.tree.map(blank, z)
    stack = jax.tree.map(lambda x: jnp.zeros((memory, *x.shape), x.dtype) + blank(x), z)
    unset = jnp.where(jnp.isinf(state.residual), 0.0, state.residual)
    state = dataclasses.replace(state, vectors=(nothing, nothing), stacks=(stack, stack))
    return state, unset, jnp.zeros((), unset.dtype)


def put(stack: Vector, v: Vector, place: jax.Array, axis: int = 0) -> Vector:
    """A stack with v in a place: nothing else is moved."""
    slot = place.astype(jnp.int32)
    return jax.tree.map(lambda s, x: lax.dynamic_update_index_in_dim(s, x, slot, axis), stack, v)


def ages(place: jax.Array, memory: int, like: jax.Array) -> jax.Array:
    """How many entries of a stack are newer than each, the one in ``place`` being the newest; for lanes ``like``."""
    found = jnp.mod(place - jnp.arange(memory), memory)
    return found.reshape((-1,) + (1,) * like.ndim)


def relative(space: Space, difference: Vector, z: Vector, unit: Any = 1.0) -> jax.Array:
    """‖difference‖ / (unit + ‖z‖), per lane; without derivative, which at 0 would be nan."""
    difference, z = jax.lax.stop_gradient((difference, z))
    return space.norm(difference) / (unit + space.norm(z))


def evaluate(problem: Bound, z: Vector, space: Space) -> tuple[Vector, Vector, jax.Array]:
    """T(z), T(z) - z and its relative norm."""
    image = problem.map(z)
    move = subtract(image, z)
    return image, move, relative(space, move, z, problem.unit)
