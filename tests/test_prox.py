"""Laws that every function with a prox obeys, at the points and kinks of the table in ``tests/cases/prox.py``."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from nsimplicit import InputError, prox
from tests.cases.prox import ROWS, WRONG

SETS = [name for name, row in ROWS.items() if isinstance(row.make(*row.params), prox.Set)]
SMOOTH = [name for name, row in ROWS.items() if row.make(*row.params).is_smooth]
# A Quadratic is a function of one vector; the second Translate is one of a Quadratic.
QUADRATIC = ["Linear", "SquaredL2", "Quadratic", "Quadratic with a diagonal", "LeastSquares tall"]
QUADRATIC += ["LeastSquares wide", "Translate of Quadratic", "Tilt and Regularize a quadratic"]
# One row for each object, and the other branches of those that have some.
OBJECTS = {row.name: name for name, row in reversed(ROWS.items()) if row.points}.values()
OBJECTS = [*OBJECTS, "L1 complex", "L2 complex", "GroupL2 along an axis", "Quadratic with a diagonal"]
OBJECTS += ["LeastSquares wide", "Translate of Quadratic"]
SOLVED = ["LeastSquares tall", "LogDet", "Simplex", "L2"]  # with rules of our own, reversed twice as well
CURVED = [name for name, row in ROWS.items() if row.curved]


def over(rows):
    return pytest.mark.parametrize("name", list(rows))


def pack(x, xp=np):
    """All entries of a point, real and imaginary parts one after the other, as one real vector."""
    flat = [xp.ravel(leaf) for leaf in jax.tree.leaves(x)]
    return xp.concatenate([part for u in flat for part in ([u.real, u.imag] if xp.iscomplexobj(u) else [u])])


def unpacker(x):
    """The way back from :func:`pack`, for NumPy and traced vectors alike."""
    leaves, tree = jax.tree.flatten(x)
    sizes = [np.size(leaf) for leaf in leaves]

    def unpack(v):
        out, start = [], 0
        for leaf, n in zip(leaves, sizes, strict=True):
            part = v[start : start + n]
            if np.iscomplexobj(leaf):
                part = part + 1j * v[start + n : start + 2 * n]
            start += n * (1 + np.iscomplexobj(leaf))
            out.append(part.reshape(np.shape(leaf)))
        return tree.unflatten(out)

    return unpack


def every_point(row):
    return [*row.points, *(x for x, _ in row.kinks)]


@functools.cache
def compiled(name, tree, shapes):
    """The prox of a row at one shape of point, and its Jacobians in reverse and forward mode: one compilation.

    They are functions of (point, step, parameters) as one vector. The selection is an argument, so that all of
    them share the compiled code; None is traced as the default it stands for.
    """
    row = ROWS[name]
    like = tree.unflatten([np.zeros(shape, dtype) for shape, dtype in shapes])
    unpack = unpacker((like, np.float64(0), *map(np.asarray, row.params)))

    def vector(z, s):
        x, step, *params = unpack(z)
        options = {"selection": s} if row.selection else {}
        return pack(row.make(*params, **options).prox(x, step), jnp)

    return jax.jit(lambda z, s: (vector(z, s), jax.jacrev(vector)(z, s), jax.jacfwd(vector)(z, s)))


def point_step_params(row, x):
    return (x, np.float64(row.step), *map(np.asarray, row.params))


def evaluate(name, x, s=0.0):
    """Prox, Jacobian in reverse mode and in forward mode with respect to point, step and parameters."""
    row = ROWS[name]
    leaves, tree = jax.tree.flatten(x)
    function = compiled(name, tree, tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves))
    return [np.asarray(out) for out in function(pack(point_step_params(row, x)), s)]


def jacobian(name, x, s):
    """With respect to the point alone."""
    return evaluate(name, x, s)[1][:, : pack(x).size]


def apply(name, x):
    """The prox at x, compiled, with the structure of x."""
    return unpacker(x)(evaluate(name, x)[0])


def value(row, x):
    return float(row.value(x, *row.params))


def draws(key, row, x, count, scale=1.0):
    """Points around ``x`` at distances from ``scale`` down to 1e-4 of it."""
    noise = np.asarray(jax.random.normal(key, (count, pack(x).size)))
    sizes = scale * np.logspace(0, -4, count)
    return [unpacker(x)(pack(x) + size * step) for size, step in zip(sizes, noise, strict=True)]


@over(ROWS)
def test_value_and_prox_agree_with_the_oracles(name):
    row = ROWS[name]
    g = jax.jit(row.make(*row.params).__call__)
    for x in every_point(row):
        np.testing.assert_allclose(g(x), value(row, x), rtol=1e-14, atol=1e-14)
        want = row.prox(x, row.step, *row.params)
        np.testing.assert_allclose(pack(apply(name, x)), pack(want), rtol=1e-13, atol=1e-14)  # the oracles' rounding


@over(ROWS)
def test_the_prox_minimises_and_its_residual_is_a_subgradient(name, key):
    """g(u) >= g(p) + <(x - p)/step, u - p> for every u: for convex g this says that p minimises."""
    row = ROWS[name]
    for x in map(row.space, every_point(row)):
        p = apply(name, x)
        bottom = value(row, np.round(p, 14) if name in SETS else p)  # an indicator knows no rounding
        assert np.isfinite(bottom)
        slope = (pack(x) - pack(p)) / row.step
        # Random points are rarely feasible; proxes of random points always are.
        around = draws(key, row, p, 40) + [row.prox(u, row.step, *row.params) for u in draws(key, row, x, 40, 3.0)]
        for u in map(row.space, around):
            assert value(row, u) >= bottom + slope @ (pack(u) - pack(p)) - 1e-12 * (1 + abs(bottom))


@over(ROWS)
def test_firmly_nonexpansive_with_the_known_constants(name, key):
    """|p - q|^2 <= <p - q, x - y>; a contraction by 1/(1 + step mu), and by no more than 1/(1 + step L)."""
    row = ROWS[name]
    g = row.make(*row.params)
    slow = 1 / (1 + row.step * float(g.strong_convexity))
    fast = 0.0 if g.lipschitz is None else 1 / (1 + row.step * float(g.lipschitz))
    for x in map(row.space, every_point(row)):
        for y in map(row.space, draws(key, row, x, 10, 3.0)):
            p, q = apply(name, x), apply(name, y)
            np.testing.assert_allclose(pack(q), pack(row.prox(y, row.step, *row.params)), rtol=1e-12, atol=1e-13)
            move, shift = pack(p) - pack(q), pack(x) - pack(y)
            size, rounding = np.linalg.norm(shift), 1e-14
            assert move @ move <= move @ shift + rounding * size
            assert fast * size - rounding <= np.linalg.norm(move) <= slow * size + rounding


@over(OBJECTS)
def test_the_conjugate_of_the_conjugate_has_the_same_prox(name):
    row = ROWS[name]
    twice = jax.jit(prox.Conjugate(prox.Conjugate(row.make(*row.params))).prox)
    for x in every_point(row):
        np.testing.assert_allclose(pack(twice(x, row.step)), pack(apply(name, x)), rtol=1e-12, atol=1e-13)


@over(SETS)
def test_projections_are_feasible_and_idempotent(name):
    row = ROWS[name]
    g = row.make(*row.params)
    project, prox_far, inside = jax.jit(g.project), jax.jit(lambda x: g.prox(x, 7.0)), jax.jit(g.__call__)
    for x in every_point(row):
        p = project(x)
        assert inside(p) == 0
        np.testing.assert_allclose(project(p), p, rtol=1e-15, atol=1e-15)
        np.testing.assert_array_equal(prox_far(x), p)


@over(ROWS)
def test_jacobian_is_symmetric_with_spectrum_in_the_unit_interval(name):
    row = ROWS[name]
    for x in every_point(row):
        for s in (0.0, 0.25, 0.5, 1.0) if row.selection else (0.0,):
            _, reverse, forward = evaluate(name, x, s)
            np.testing.assert_allclose(forward, reverse, rtol=0, atol=1e-14)
            J = jacobian(name, x, s)
            np.testing.assert_allclose(J, J.T, rtol=0, atol=1e-14)
            spectrum = np.linalg.eigvalsh((J + J.T) / 2)
            assert spectrum[0] >= -1e-14 and spectrum[-1] <= 1 + 1e-14


def one_sided(row):
    """Which entries of (point, step, parameters) belong to a parameter that cannot decrease."""
    blocks = [np.zeros(pack(every_point(row)[0]).size + 1, bool)]
    return np.concatenate(blocks + [np.full(np.size(p), i in row.at_bound) for i, p in enumerate(row.params)])


@over(ROWS)
def test_derivatives_are_those_of_the_oracle_off_kinks(name):
    """With respect to the point, the step and every parameter, against differences of the NumPy oracle."""
    row = ROWS[name]
    h, bounded = 1e-5, one_sided(row)
    for i, x in enumerate(row.points):
        args = point_step_params(row, x)
        z, unpack = pack(args), unpacker(args)

        def oracle(z, unpack=unpack):
            x, step, *params = unpack(z)
            return pack(row.prox(x, step, *params))

        def difference(k, z=z, oracle=oracle):
            d = np.where(np.arange(z.size) == k, h, 0.0)
            if bounded[k]:
                return (4 * oracle(z + d) - 3 * oracle(z) - oracle(z + 2 * d)) / (2 * h)
            return (oracle(z + d) - oracle(z - d)) / (2 * h)

        # An infinite bound has no influence. The differences err by h^2 times third derivatives, and by 1e-15/h.
        want = np.stack([difference(k) if np.isfinite(z[k]) else 0 * oracle(z) for k in range(z.size)], axis=1)
        np.testing.assert_allclose(evaluate(name, x)[1], want, rtol=0, atol=1e-8, err_msg=f"point {i}")


@over(CURVED)
def test_second_derivatives_are_differences_of_the_first(name, key):
    row = ROWS[name]
    args = point_step_params(row, row.points[0])
    z, unpack = pack(args), unpacker(args)
    weights, direction = np.asarray(jax.random.normal(key, (2, z.size)))
    direction = np.where(one_sided(row) | np.isinf(z), 0, direction)

    def scalar(z):
        x, step, *params = unpack(z)
        out = pack(row.make(*params).prox(x, step), jnp)
        return jnp.sum(jnp.sin(out) * weights[: out.size])

    @jax.jit
    def orders(z):
        gradient = jax.grad(scalar)
        both = jax.jvp(gradient, (z,), (direction,))
        if name not in SOLVED:
            return *both, both[1]
        return *both, jax.grad(lambda z: direction @ jnp.where(direction == 0, 0, gradient(z)))(z)

    h = 1e-5
    _, forward, reverse = orders(z)
    want = (orders(z + h * direction)[0] - orders(z - h * direction)[0]) / (2 * h)
    np.testing.assert_allclose(forward, want, rtol=0, atol=1e-7)
    np.testing.assert_allclose(reverse, forward, rtol=1e-12, atol=1e-13)


@over([name for name, row in ROWS.items() if row.kinks])
def test_vertices_are_the_limits_of_jacobians_around_a_kink(name, key):
    """Both inclusions: every Jacobian nearby is near a vertex, and every vertex is met."""
    row, radius = ROWS[name], 1e-6
    for x, vertices in row.kinks:
        nearby = pack(x) + radius * np.asarray(jax.random.normal(key, (100, pack(x).size)))
        found = np.stack([jacobian(name, unpacker(x)(v), 0.3) for v in nearby])
        distances = np.abs(found[:, None] - np.stack(vertices)).max(axis=(2, 3))
        assert distances.min(axis=1).max() < 100 * radius, "a Jacobian nearby is no vertex"
        assert distances.min(axis=0).max() < 100 * radius, "no Jacobian nearby is this vertex"


def distance_to_hull(matrix, vertices):
    """Residual of writing a matrix as a convex combination."""
    columns = np.stack([np.append(v.ravel(), 1.0) for v in vertices], axis=1)
    return scipy.optimize.nnls(columns, np.append(matrix.ravel(), 1.0))[1]


@over([name for name, row in ROWS.items() if row.kinks])
def test_selections_give_vertices_and_their_mixtures(name):
    for x, vertices in ROWS[name].kinks:
        for s in (0.0, 1.0):
            J = jacobian(name, x, s)
            assert min(np.abs(J - v).max() for v in vertices) < 1e-14
        for s in (0.25, 0.5):
            assert distance_to_hull(jacobian(name, x, s), vertices) < 1e-12
        if len(vertices) > 1:
            assert np.abs(jacobian(name, x, 0.0) - jacobian(name, x, 1.0)).max() > 1e-3, "the selection does nothing"


@over(["L1", "Box", "SeparableSum", "Conjugate of L1", *CURVED])
def test_jit_and_vmap_give_the_eager_result(name):
    row = ROWS[name]
    g, x = row.make(*row.params), every_point(row)[-1]
    p = g.prox(x, row.step)
    eager = pack(p)
    assert jax.tree.structure(p) == jax.tree.structure(x)
    np.testing.assert_allclose(pack(apply(name, x)), eager, rtol=1e-13, atol=1e-14)
    # A batch of objects, of points and of steps.
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), (g, x, np.float64(row.step)))
    lanes = jax.jit(jax.vmap(lambda g, x, s: g.prox(x, s)))(*batch)
    for k in range(2):
        np.testing.assert_allclose(pack(jax.tree.map(lambda b, k=k: b[k], lanes)), eager, rtol=1e-13, atol=1e-14)


@over(OBJECTS)
def test_low_precision_keeps_its_dtype_and_stays_near(name):
    """With parameters in float64: the state decides."""
    row = ROWS[name]
    x, g = every_point(row)[0], row.make(*row.params)
    for dtype in (jnp.complex64,) if np.iscomplexobj(jax.tree.leaves(x)[0]) else (jnp.float32, jnp.bfloat16):
        got = jax.jit(g.prox)(jax.tree.map(lambda u, d=dtype: jnp.asarray(u, d), x), row.step)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(got))
        wide = jax.tree.map(lambda u: np.asarray(u, complex if np.iscomplexobj(u) else float), got)
        # A prox is nonexpansive: the errors are those of rounding x, the parameters and the result.
        tolerance = 8 * float(jnp.finfo(dtype).eps) * max(1, np.abs(pack(x)).max())
        np.testing.assert_allclose(pack(wide), pack(row.prox(x, row.step, *row.params)), rtol=0, atol=tolerance)


@over(SMOOTH)
def test_gradients_and_their_constants(name, key):
    row = ROWS[name]
    g = row.make(*row.params)
    x = row.points[0] if row.name != "LogDet" else row.prox(row.points[0], row.step, *row.params)
    unpack, v, h = unpacker(x), pack(x), 1e-5
    basis = np.eye(v.size) * h
    want = [(value(row, unpack(v + d)) - value(row, unpack(v - d))) / (2 * h) for d in basis]
    gradient = jax.jit(g.gradient)
    got = pack(gradient(x))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-8)
    for y in draws(key, row, x, 5, 0.1):
        change, shift = pack(gradient(y)) - got, pack(y) - v
        assert change @ shift >= g.strong_convexity * (shift @ shift) - 1e-12
        if g.lipschitz is not None:
            assert np.linalg.norm(change) <= g.lipschitz * np.linalg.norm(shift) + 1e-12


@over(QUADRATIC)
def test_lipschitz_constants_are_attained(name):
    row = ROWS[name]
    g = row.make(*row.params)
    x = np.zeros_like(row.points[0])
    gradient = jax.jit(g.gradient)
    hessian = np.stack([gradient(e) - gradient(x) for e in np.eye(x.size)])
    np.testing.assert_allclose(g.lipschitz, np.linalg.eigvalsh(hessian)[-1], rtol=1e-12)


@over(QUADRATIC)
def test_as_quadratic_differs_by_a_constant(name, key):
    row = ROWS[name]
    g, x = row.make(*row.params), row.points[0]
    quadratic = g.as_quadratic
    assert isinstance(quadratic, prox.Quadratic)
    np.testing.assert_allclose(quadratic.prox(x, row.step), g.prox(x, row.step), rtol=1e-12)
    for y in draws(key, row, x, 3):
        np.testing.assert_allclose(quadratic(y) - g(y), quadratic(x) - g(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(quadratic.dense(x.size) @ x, quadratic.product(x), rtol=1e-14)


MATH = {
    "sum": np.sum, "abs": np.abs, "sign": np.sign, "max": np.maximum, "norm": np.linalg.norm,
    "inv": np.linalg.inv, "I": np.eye(3), "clip": np.clip, "sqrt": np.sqrt, "log": np.log,
}  # fmt: skip


@over([name for name, row in ROWS.items() if row.formula])
def test_the_formula_in_the_docstring_is_what_is_computed(name):
    row = ROWS[name]
    g = row.make(*row.params)
    text = re.search(r"Formula: (.*?)\n\n", type(g).__doc__, re.S).group(1)
    formulas = {call: f for call, f in re.findall(r"``(\w+)\([^)]*\) = (.*?)``", " ".join(text.split()))}
    assert set(formulas) == {"g", "prox"}
    names = dict(zip(row.formula.split(), row.params, strict=True))
    x = row.points[0]
    scope = {**MATH, **names, "x": x, "s": row.step}
    np.testing.assert_allclose(g(x), eval(formulas["g"], scope), rtol=1e-12)
    np.testing.assert_allclose(g.prox(x, row.step), eval(formulas["prox"], scope), rtol=1e-12, atol=1e-13)


@over(OBJECTS)
def test_objects_are_pytrees_whose_leaves_carry_any_sign(name):
    """A gradient with respect to an object is an object: its leaves are no parameters, and nothing checks them."""
    row = ROWS[name]
    x = every_point(row)[0]
    g = row.make(*row.params)
    gradient = jax.jit(jax.grad(lambda g: -3 * pack(g.prox(x, row.step), jnp).sum()))(g)
    assert jax.tree.structure(gradient) == jax.tree.structure(g)


@over(WRONG)
def test_bad_parameters_raise(name):
    call, text = WRONG[name]
    with pytest.raises(InputError, match=re.compile(text, re.S)) as caught:
        call()
    lines = str(caught.value).splitlines()
    assert 2 <= len(lines) <= 3 and lines[0].startswith("`") and (len(lines) == 2 or lines[2].startswith("Try: (a)"))


@over(ROWS)
def test_exports_for_every_platform(name):
    row = ROWS[name]
    x = every_point(row)[0]

    def derivative(params, x, step):
        return jax.grad(lambda p: pack(row.make(*p).prox(x, step), jnp).sum())(params)

    params = tuple(jnp.asarray(p) for p in row.params)
    jax.export.export(jax.jit(derivative), platforms=("cpu", "cuda", "tpu"))(params, x, row.step)
