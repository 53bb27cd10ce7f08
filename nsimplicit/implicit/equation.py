"""What a solution satisfies, written so that the implicit rule can differentiate it.

An :class:`Equation` is a chain of maps on the state and a rule for closing it. The chain is kept
apart because its factors are what structured linear solvers need: for a proximal gradient step the
Jacobian is D(I - step·H), and D and I - step·H are the Jacobians of the two maps.

Every equation is linearised as M dz = b with one sign convention:

    root         F(z) = 0                 M = F'            b = -F_theta dtheta
    fixed point  T(z) = z                 M = I - T'        b =  T_theta dtheta
    prox step    prox(forward(z)) = z     M = I - D S       b as for a fixed point
    its dual     forward(prox(z)) = z     M = I - S D       b as for a fixed point
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

from nsimplicit._records import config
from nsimplicit._tree import Space, negative, subtract
from nsimplicit.linear_solvers.operator import General, Operator, Product, ProxGradient, Structure

Map = Callable[[Any], Any]


class Equation(abc.ABC):
    """An equation for a state z: ``maps`` applied left to right, then closed by ``residual``."""

    maps: tuple[Map, ...]
    is_root: ClassVar[bool] = False
    hessian: Map | None = None

    @abc.abstractmethod
    def image(self, z: Any, end: Any) -> Any:
        """The plain iterate after z: T(z); z itself where the equation has no map."""

    @abc.abstractmethod
    def residual(self, z: Any, end: Any) -> Any:
        """The residual, from z and the end of the chain at z."""

    @abc.abstractmethod
    def operator(self, products: tuple[Product, ...], space: Space, hessian: Any = None) -> Operator:
        """M, from the products with the Jacobians of the maps, and what ``hessian`` gave at z."""

    @abc.abstractmethod
    def right_hand_side(self, tangent: Any) -> Any:
        """b, from the tangent of the end of the chain in the parameters."""


@config
class Root(Equation):
    """F(z) = 0."""

    maps: tuple[Map, ...]
    structure: Structure = General()
    is_root: ClassVar[bool] = True

    def image(self, z: Any, end: Any) -> Any:
        """z: F gives no next iterate."""
        return z

    def residual(self, z: Any, end: Any) -> Any:
        """F(z)."""
        return end

    def operator(self, products: tuple[Product, ...], space: Space, hessian: Any = None) -> Operator:
        """M = F'."""
        return Operator(products[0], self.structure, space)

    def right_hand_side(self, tangent: Any) -> Any:
        """-F_theta dtheta."""
        return negative(tangent)


class FixedPointEquation(Equation):
    """T(z) = z, T being the chain of maps; its final classes know more or less of I - T'."""

    def image(self, z: Any, end: Any) -> Any:
        """T(z)."""
        return end

    def residual(self, z: Any, end: Any) -> Any:
        """T(z) - z."""
        return subtract(end, z)

    def right_hand_side(self, tangent: Any) -> Any:
        """T_theta dtheta."""
        return tangent


@config
class FixedPoint(FixedPointEquation):
    """T(z) = z."""

    maps: tuple[Map, ...]

    def operator(self, products: tuple[Product, ...], space: Space, hessian: Any = None) -> Operator:
        """M = I - T'."""
        return Operator(lambda v: subtract(v, _chain(products, v)), General(), space)


@config
class ProxStep(FixedPointEquation):
    """prox(z - step·grad f(z)) = z, kept as its two maps ``(forward, prox)``.

    Args:
        maps: ``(forward, prox)``.
        hessian: z -> step·H at z, an object with ``block(index)``; or None. Given only where the prox
            is separable and z one real vector.
    """

    maps: tuple[Map, ...]
    hessian: Map | None = None

    def operator(self, products: tuple[Product, ...], space: Space, hessian: Any = None) -> Operator:
        """M = I - D S with D the Jacobian of the prox and S = I - step·H."""
        forward, prox = products
        structure = ProxGradient(prox, forward, block=hessian and hessian.block)
        return Operator(lambda v: subtract(v, prox(forward(v))), structure, space)


@config
class StepAfterProx(FixedPointEquation):
    """forward(prox(y)) = y: the same two maps as in :class:`ProxStep`, the other way round.

    Where z solves that equation y = forward(z) solves this one, and z = prox(y): the iterate y of
    Douglas-Rachford splitting is such a point.

    Args:
        maps: ``(prox, forward)``.
        hessian: as in :class:`ProxStep`.
    """

    maps: tuple[Map, ...]
    hessian: Map | None = None

    def operator(self, products: tuple[Product, ...], space: Space, hessian: Any = None) -> Operator:
        """M = I - S D."""
        prox, forward = products
        structure = ProxGradient(prox, forward, transposed=True, block=hessian and hessian.block)
        return Operator(lambda v: subtract(v, forward(prox(v))), structure, space)


class Problem(abc.ABC):
    """Whatever knows the equation of its solution: a decorated solver, a splitting."""

    @abc.abstractmethod
    def formulate(self, *args: Any, **kwargs: Any) -> tuple[Any, Equation]:
        """A solution and the equation it satisfies, for the arguments of a call."""

    def contraction(self, z: Any) -> float | None:
        """A factor below one with which the map contracts whatever the selections, if constants tell."""
        return None

    def guarantee(self, z: Any) -> tuple[float, str] | None:
        """A lower bound on the smallest singular value for every selection, and what tells it; None where nothing does.

        It holds for the derivative of the equation's residual at z, whatever the kinks there.
        """
        rate = self.contraction(z)
        if rate is None:
            return None
        return 1 - rate, f"contraction: factor {rate:.4g} for every selection, from the constants of the problem"


def formulate(problem: Problem | Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The solution and the equation of a call: of a problem, or of an optimality function at a solution."""
    if isinstance(problem, Problem):
        return problem.formulate(*args, **kwargs)
    return args[0], Root((lambda z: problem(z, *args[1:], **kwargs),))


def _chain(products: tuple[Product, ...], v: Any) -> Any:
    for product in products:
        v = product(v)
    return v


def equation_of(fixed_point_map: Map) -> Map:
    """The optimality function of a fixed-point map: z, theta -> T(z, theta) - z.

    Example:
        >>> import nsimplicit as nsi
        >>> float(nsi.equation_of(lambda z, t: z / 2 + t)(4.0, 1.0))
        -1.0
    """

    def residual(z: Any, *args: Any, **kwargs: Any) -> Any:
        return subtract(fixed_point_map(z, *args, **kwargs), z)

    return residual
