"""Solvers: how a fixed-point equation or a root is iterated."""

from nsimplicit.solvers.anderson import Anderson as Anderson
from nsimplicit.solvers.base import Solver as Solver
from nsimplicit.solvers.broyden import Broyden as Broyden
from nsimplicit.solvers.nesterov import Nesterov as Nesterov
from nsimplicit.solvers.newton import SemismoothNewton as SemismoothNewton
from nsimplicit.solvers.picard import Picard as Picard

__all__ = ["Anderson", "Broyden", "Nesterov", "Picard", "SemismoothNewton", "Solver"]
