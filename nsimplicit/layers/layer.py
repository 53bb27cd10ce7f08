"""A layer: a function whose answer satisfies an equation that certificates can look at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from nsimplicit.implicit.equation import Equation, Problem


class Layer(Problem):
    """A function that is called as it is, and knows the equation of its answer: ``certify(layer)(*args)``.

    Args:
        fun: the function.
        formulate: called like it; a solution and the equation it satisfies.
    """

    def __init__(self, fun: Callable[..., Any], formulate: Callable[..., tuple[Any, Equation]]) -> None:
        """Look like the function: its name, its docstring, its signature."""
        functools.update_wrapper(self, fun)
        self._fun, self._formulate = fun, formulate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's answer."""
        return self._fun(*args, **kwargs)

    def formulate(self, *args: Any, **kwargs: Any) -> tuple[Any, Equation]:
        """A solution and its equation."""
        return self._formulate(*args, **kwargs)


def layer(formulate: Callable[..., tuple[Any, Equation]]) -> Callable[[Callable[..., Any]], Layer]:
    """Decorate a function with the equation of its answer."""
    return lambda fun: Layer(fun, formulate)
