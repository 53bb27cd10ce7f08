"""What a function with a prox is: one abstract class for functions, one for sets."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax

class Function(abc.ABC):
    """A function g with a prox: ``prox(x, step) = argmin_u g(u) + |u - x|^2 / (2 step)``.

    A final class writes the value (``__call__``) and ``prepare``; ``prox`` follows. Class
    constants say what is known: ``is_convex``, ``is_smooth``, ``strong_convexity``, ``lipschitz``
    (of the gradient). They let splittings choose steps.
    """

    is_convex: ClassVar[bool] = True
    is_smooth: ClassVar[bool] = False
    strong_convexity: Any = 0.0
    lipschitz: Any = None

    @abc.abstractmethod
    def __call__(self, x: Any) -> jax.Array:
        """The value g(x), a real scalar; ``inf`` outside the domain."""

    @abc.abstractmethod
    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The map ``x -> prox(x, step)``, with all that does not depend on x computed once."""

    def prox(self, x: Any, step: Any) -> Any:
        """argmin_u g(u) + |u - x|^2 / (2 step)."""
        return self.prepare(step)(x)


class Set(Function):
    """The indicator of a closed set; its prox, for any step, is the projection."""

    @abc.abstractmethod
    def project(self, x: Any) -> Any:
        """The nearest point of the set."""

    def prepare(self, step: Any) -> Callable[[Any], Any]:
        """The projection; the step does not matter."""
        del step
        return self.project
