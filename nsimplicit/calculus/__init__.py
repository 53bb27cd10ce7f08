"""Programs as data: re-evaluating a JAX function with chosen kinks, and the sets of derivatives it has."""

from nsimplicit.calculus.directional import ImplicitDirection
from nsimplicit.calculus.jacobian_set import JacobianSet, excess
from nsimplicit.calculus.normal_form import NormalForm, normal_form
from nsimplicit.calculus.piggyback import Attractor
from nsimplicit.calculus.sets import (
    clarke_jacobian,
    conservative_jacobian,
    directional_derivative,
    implicit_directional_derivative,
    implicit_jacobian,
    piggyback_jacobian,
)

__all__ = [
    "Attractor",
    "ImplicitDirection",
    "JacobianSet",
    "NormalForm",
    "clarke_jacobian",
    "conservative_jacobian",
    "directional_derivative",
    "excess",
    "implicit_directional_derivative",
    "implicit_jacobian",
    "normal_form",
    "piggyback_jacobian",
]
