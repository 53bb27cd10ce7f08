"""What ``benchmarks.gpu`` runs on a GPU lowers for CUDA and TPU, with full precision in the products of the rule."""

import functools
import re

import jax
import pytest

from benchmarks import gpu

CASES = gpu.cases(tiny=True)
NAMES = ("many small systems", "equilibrium layer, a step", "one large system", "Lasso hypergradient")


@functools.cache
def case(name):
    return CASES[NAMES.index(name)]()


@functools.cache
def exported(name, entrant):
    """The program of this package, exported for both platforms from shapes alone."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), case(name).args)
    return jax.export.export(jax.jit(case(name).calls[entrant]), platforms=gpu.PLATFORMS)(*shapes)


def products(name, entrant):
    """How many products with a matrix a program has on one platform, and how many of them a GPU may round."""
    text = exported(name, entrant).mlir_module()
    dots = re.findall(r"= stablehlo\.dot_general[^\n]*tensor<\d+x\d+xf32>[^\n]*", text)
    rounded = [dot for dot in dots if "precision = [HIGHEST, HIGHEST]" not in dot]
    return len(dots) / len(gpu.PLATFORMS), len(rounded) / len(gpu.PLATFORMS)


def test_every_case_has_its_name():
    assert [case(name).name for name in NAMES] == list(NAMES)
    assert len(CASES) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_program_of_ours_lowers(name):
    ours = [entrant for entrant in case(name).calls if entrant.startswith("nsimplicit")]
    assert len(ours) >= 2
    for entrant in ours:
        found = exported(name, entrant)
        assert found.platforms == gpu.PLATFORMS
        assert len(found.out_avals) == len(jax.tree.leaves(case(name).args[0]))
        assert all(aval.dtype == "float32" for aval in found.out_avals)


@pytest.mark.parametrize("entrant", ["nsimplicit", "nsimplicit, ProxCG"])
def test_no_product_of_a_lasso_may_be_rounded(entrant):
    count, rounded = products("Lasso hypergradient", entrant)
    assert count > 0
    assert rounded == 0


@pytest.mark.parametrize("entrant", ["nsimplicit", "nsimplicit, GMRES"])
def test_no_product_of_the_rule_may_be_rounded(entrant):
    count, rounded = products("one large system", entrant)
    assert count >= 2  # the products of the solve and of its check
    assert rounded == 0  # the map at the solution included, which is where its derivative is taken


def test_a_gradient_on_the_device_that_is_here_has_the_promised_error():
    small = case("many small systems")
    assert gpu.relative(small.truth())(jax.jit(small.calls["nsimplicit"])(*small.args)) <= gpu.MOST
