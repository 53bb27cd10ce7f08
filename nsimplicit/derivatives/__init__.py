"""Derivatives: how the answer of a solve is differentiated."""

from nsimplicit.derivatives.base import Derivative as Derivative
from nsimplicit.derivatives.implicit import Implicit as Implicit
from nsimplicit.derivatives.piggyback import Piggyback as Piggyback
from nsimplicit.derivatives.truncated import Neumann as Neumann
from nsimplicit.derivatives.truncated import OneStep as OneStep
from nsimplicit.derivatives.truncated import Truncated as Truncated
from nsimplicit.derivatives.unrolled import Unrolled as Unrolled

__all__ = ["Derivative", "Implicit", "Neumann", "OneStep", "Piggyback", "Truncated", "Unrolled"]
