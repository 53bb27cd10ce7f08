"""From the call of a solver to the call of its equation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from nsimplicit._errors import InputError, message

EMPTY = inspect.Parameter.empty


def equation_arguments(
    solver: Callable[..., Any], equation: Callable[..., Any], init_argnum: int | None, args: tuple, kwargs: dict
) -> tuple[tuple, dict]:
    """What the equation gets beside the solution, when the solver is called with ``args, kwargs``.

    The same arguments in the same form, less the starting point. Where the caller left an argument
    to the solver's default, a parameter of the equation with that name (or ``**kwargs``) gets that
    default, so that both solve one problem.

    Args:
        solver: whose signature names the arguments.
        equation: whose first parameter is the solution.
        init_argnum: position of the starting point in the solver's call, or ``None``.
        args: as given by the caller.
        kwargs: as given by the caller.

    Returns:
        Positional and keyword arguments for the equation.
    """
    given, accepts = _parameters(solver), _parameters(equation)[1:]
    positional, named = list(args), dict(kwargs)
    skip = None
    if init_argnum is not None:
        skip = given[init_argnum].name if init_argnum < len(given) else None
        if init_argnum < len(positional):
            del positional[init_argnum]
        else:
            named.pop(skip, None)
    filled = {p.name for p in given[: len(args)]} | set(kwargs) | {skip}
    names = {p.name for p in accepts}
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepts)
    for parameter in given:
        name = parameter.name
        if parameter.default is not EMPTY and name not in filled and (name in names or anything):
            named[name] = parameter.default
    return tuple(positional), named


def check_fit(equation: Callable[..., Any], z: Any, args: tuple, kwargs: dict, where: str) -> None:
    """Raise unless ``equation(z, *args, **kwargs)`` is a call its signature allows."""
    try:
        signature = inspect.signature(equation)
    except (TypeError, ValueError):  # some builtins have none
        return
    try:
        signature.bind(z, *args, **kwargs)
    except TypeError as error:
        named = f" and the keywords {', '.join(sorted(kwargs))}" if kwargs else ""
        raise InputError(
            message(
                where,
                f"the equation {signature} cannot be called with the solution, {len(args)} more positional "
                f"arguments{named}: {error}.",
                "The equation gets the arguments of the solver, with the solution in the place of the starting point.",
                "give both functions the same parameters",
                "init_argnum=None if the solver takes no starting point, or its position",
            )
        ) from error


def _parameters(fun: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return []
