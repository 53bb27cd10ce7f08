"""What a function with a prox is: one abstract class for functions, one for sets."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nsimplicit import primitives
from nsimplicit._errors import InputError, message


class Function(abc.ABC):
    """A function g with a prox: ``prox(x, step) = argmin_u g(u) + |u - x|^2 / (2 step)``.

    A final class writes the value (``__call__``) and ``prepare``; ``prox`` and ``gradient`` follow.
    The constants say what is known, and let splittings choose steps: ``is_convex``; ``is_smooth``
    (then ``gradient`` may be used); ``strong_convexity``; ``lipschitz``, of the gradient, ``None``
    when unknown; ``as_quadratic``, the same function up to a constant as a ``Quadratic``;
    ``is_separable``: each entry of the prox depends on the same entry of x alone.

    A class that checks its parameters does so in ``__post_init__``, which sees only what a user
    passed (:func:`nsimplicit._records.data`).
    """

    # No annotations here: these are constants, not fields of the dataclass, and a property may replace one.
    is_convex = True
    is_separable = False
    is_smooth = False
    strong_convexity = 0.0
    lipschitz = None
    as_quadratic = None

    @abc.abstractmethod
    def __call__(self, x: Any) -> jax.Array:
        """The value g(x), a real scalar; ``inf`` outside the domain."""

    @abc.abstractmethod
    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The map ``x -> prox(x, step)``, with all that does not depend on x computed once."""

    def prox(self, x: Any, step: Any) -> Any:
        """argmin_u g(u) + |u - x|^2 / (2 step)."""
        where = f"prox.{type(self).__name__}.prox"
        require("positive", step, where, "step", "The prox minimises g(u) + |u - x|^2 / (2 step).")
        return self.prepare(step)(x)

    def gradient(self, x: Any) -> Any:
        """The gradient at x of a function that ``is_smooth``; complex x: of the real inner product."""
        if not self.is_smooth:
            raise InputError(
                message(
                    f"prox.{type(self).__name__}.gradient(x)",
                    "this function is not smooth.",
                    "It has a prox, and no gradient at its kinks.",
                    "make it g in ForwardBackward(f, g), whose f is the smooth one",
                    "jax.grad(g), with the selection of each kink",
                )
            )
        # JAX's convention for complex x is the conjugate of the direction of steepest ascent.
        return jax.tree.map(jnp.conj, jax.grad(self.__call__)(jax.tree.map(as_float, x)))

    def subspace(self, x: Any) -> Any:
        """The projection on the linear subspace the function lives on: symmetric matrices, say; x itself here.

        Splittings stay on it: off it several iterates stand for one solution, and no derivative exists.
        """
        return x

    def hessian(self, x: Any) -> Any:
        """The Hessian at x where its blocks can be had, as a pytree with ``block(index)``; else None.

        Direct linear solvers then take the rows and columns of the support alone. Products with the
        Hessian are always those of ``gradient``.
        """
        del x
        return None


class Set(Function):
    """The indicator of a closed set; its prox, for any step, is the projection."""

    @abc.abstractmethod
    def project(self, x: Any) -> Any:
        """The nearest point of the set."""

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The projection; the step does not matter."""
        del step
        return self.project


def as_float(x: Any) -> jax.Array:
    """An array that can carry a derivative: integers become floats."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)


def real(x: Any, where: str) -> jax.Array:
    """A real floating-point array, or an error: complex numbers have no order."""
    x = as_float(x)
    if jnp.iscomplexobj(x):
        raise InputError(message(f"{where}(...)", f"x has dtype {x.dtype}.", "This set orders its entries.", "x.real"))
    return x


def fit(param: Any, x: jax.Array, name: str) -> jax.Array:
    """A real parameter in the real dtype of ``x``; it must broadcast to the shape of ``x``.

    The prox of a float32 state is float32, whatever precision its parameters came in: a loop
    cannot change its dtype half way.
    """
    shape = jnp.shape(param)
    pairs = zip(reversed(shape), reversed(x.shape), strict=False)
    if len(shape) > x.ndim or any(p not in (1, n) for p, n in pairs):
        raise InputError(
            message(
                name,
                f"has shape {shape}, and x has shape {x.shape}.",
                "A parameter is one number, or broadcasts to the shape of x.",
                "a scalar",
                f"an array of shape {x.shape}",
            )
        )
    return jnp.asarray(param, jnp.finfo(x.dtype).dtype)


def indicator(inside: jax.Array, like: jax.Array) -> jax.Array:
    """0 if all of ``inside`` holds, inf if not."""
    return jnp.where(jnp.all(inside), 0, jnp.asarray(jnp.inf, like.dtype))


def leafwise(fun: Callable[..., Any], x: Any, *params: Any) -> Any:
    """``fun(leaf, *params)`` on each leaf of x; a parameter is shared, or has the structure of x."""
    tree = jax.tree.structure(x)
    if jax.tree_util.treedef_is_leaf(tree):
        return fun(as_float(x), *params)
    columns = [jax.tree.leaves(p) if jax.tree.structure(p) == tree else [p] * tree.num_leaves for p in params]
    return tree.unflatten([fun(as_float(leaf), *row) for leaf, *row in zip(jax.tree.leaves(x), *columns, strict=True)])


def add_up(tree: Any) -> jax.Array:
    """The sum of all entries of all leaves."""
    return functools.reduce(jnp.add, [jnp.sum(leaf) for leaf in jax.tree.leaves(tree)])


def extreme(reduce: Callable[[jax.Array], jax.Array], param: Any) -> jax.Array:
    """The smallest (``jnp.min``) or largest number in a parameter: a constant, for choosing steps."""
    return reduce(jnp.stack([reduce(lax.stop_gradient(jnp.asarray(leaf))) for leaf in jax.tree.leaves(param)]))


def modulus(x: jax.Array) -> jax.Array:
    """The absolute value of each entry; its derivative at a complex 0 is 0, at a real 0 that of ``abs``."""
    return primitives.norm(x[..., None], axis=-1) if jnp.iscomplexobj(x) else primitives.abs(x)


# On accelerators a product has 16 bits by default. That is no basis for a derivative.
matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def concrete(x: Any) -> np.ndarray | None:
    """The numbers in ``x``; ``None`` while it is traced."""
    try:
        return np.asarray(x)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
        return None


def require(sign: str, param: Any, where: str, argument: str, meaning: str) -> None:
    """Raise unless every number of a concrete parameter is ``"positive"`` or ``"nonnegative"``."""
    for leaf in jax.tree.leaves(param):
        numbers = concrete(leaf)
        if numbers is None or numbers.size == 0:
            continue
        low = np.min(numbers.astype(float))
        if not (low > 0 if sign == "positive" else low >= 0):
            found = f"{'the smallest of ' if numbers.ndim else ''}{argument} is {low:g}, and must be {sign}."
            raise InputError(message(f"{where}({argument}=...)", found, meaning, f"a {sign} {argument}"))


def require_function(fun: Any, rule: str) -> None:
    """Raise unless a rule is applied to a :class:`Function`."""
    if not isinstance(fun, Function):
        found = f"fun is a {type(fun).__name__}."
        tries = "prox.from_function(value, prox, *params)", "prox.smooth(fun, *args)"
        raise InputError(message(f"prox.{rule}(fun, ...)", found, "It must be an object of nsimplicit.prox.", *tries))
