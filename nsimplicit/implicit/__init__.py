"""The implicit rule: equations, the rule itself, guards, and the tap."""

from nsimplicit.implicit.equation import Equation as Equation
from nsimplicit.implicit.equation import FixedPoint as FixedPoint
from nsimplicit.implicit.equation import Problem as Problem
from nsimplicit.implicit.equation import ProxStep as ProxStep
from nsimplicit.implicit.equation import Root as Root
from nsimplicit.implicit.equation import equation_of as equation_of
from nsimplicit.implicit.rule import attach as attach
from nsimplicit.implicit.rule import trace_equation as trace_equation
from nsimplicit.implicit.tap import Report as Report
from nsimplicit.implicit.tap import tap as tap

__all__ = [
    "Equation",
    "FixedPoint",
    "Problem",
    "ProxStep",
    "Report",
    "Root",
    "attach",
    "equation_of",
    "tap",
    "trace_equation",
]
