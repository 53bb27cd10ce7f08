"""Nonsmooth implicit differentiation for JAX."""

from nsimplicit import derivatives, linear_solvers, prox, selections, solvers, splittings
from nsimplicit._errors import DerivativeError, InputError, NsimplicitError
from nsimplicit._version import __version__
from nsimplicit.custom_root import custom_fixed_point, custom_root, root_jvp, root_vjp
from nsimplicit.diagnose import Diagnosis, diagnose
from nsimplicit.fixed_point import Solution, fixed_point, root
from nsimplicit.host import host
from nsimplicit.implicit import Report, equation_of, guards, tap
from nsimplicit.primitives import (  # isort: skip
    abs, clip, hard_tanh, leaky_relu, max, max_pool, maximum, median, min, minimum,
    norm, ordering, relu, relu6, soft_threshold, sort, switch, top_k,
)
