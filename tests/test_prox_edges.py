"""Where other libraries return nan or a wrong derivative, and what the objects promise beyond the common laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from nsimplicit import prox
from tests.cases.prox import ROWS, V3, V4, A, B, C, P, symmetric


@pytest.mark.parametrize("selection", (None, 1.0, "below"))
def test_weight_zero_is_the_identity_whatever_the_selection(selection):
    for g in (prox.L1(0.0, selection=selection), prox.L2(0.0, selection=selection)):
        tangent = jax.jit(lambda x, d, g=g: jax.jvp(lambda x: g.prox(x, 0.5), (x,), (d,))[1])
        for x in (jnp.zeros(2), jnp.zeros(2, complex), jnp.array([1.0, 0.0])):
            np.testing.assert_array_equal(tangent(x, x + 1), x + 1)
    # The other parameters still see it: at x > 0 the prox is x - step * weight, on the side where weights live.
    slope = jax.grad(lambda w: prox.L1(w, selection=selection).prox(jnp.array(2.0), 0.5))(0.0)
    assert slope == -0.5


def derivatives(fun, x):
    """The Jacobian and its derivative."""
    return jax.jit(lambda x: (jax.jacrev(fun)(x), jax.jacfwd(jax.jacrev(fun))(x)))(x)


def test_the_zero_vector_is_smooth_for_the_l2_norm():
    for g in (prox.L2(1.0), prox.GroupL2(1.0), prox.GroupL2(1.0, [[0, 1], [2]])):
        for d in derivatives(lambda x, g=g: g.prox(x, 0.5), jnp.zeros(3)):
            np.testing.assert_array_equal(d, 0)
        np.testing.assert_array_equal(jax.grad(g)(jnp.zeros(3)), 0)


@pytest.mark.parametrize("groups", [dict(groups=[[0, 1], [2, 3]]), dict(axis=1)], ids=["groups", "axis"])
def test_one_zero_group_does_not_poison_the_others(groups):
    x = jnp.array([0.0, 0.0, 3.0, 4.0]) if "groups" in groups else jnp.array([[0.0, 0.0], [3.0, 4.0]])

    def value(x, w):
        g = prox.GroupL2(w, **groups)
        return jnp.sum(g.prox(x, 0.5) ** 2) + g(x)

    gx, gw = jax.jit(jax.grad(value, argnums=(0, 1)))(x, jnp.array([1.0, 2.0]))
    # The second group: prox (1 - 1/5) (3, 4), squared norm (5 - w/2)^2; its value 5 w.
    np.testing.assert_allclose(gx.ravel(), [0, 0, 2 * 4 * 0.6 + 2 * 0.6, 2 * 4 * 0.8 + 2 * 0.8], rtol=1e-14)
    np.testing.assert_allclose(gw, [0, -4 + 5], rtol=1e-14)


def test_positions_in_no_group_are_free():
    g = prox.GroupL2(np.array([1.0, 100.0]), [[0, 1], [3]])
    x = np.array([3.0, 4.0, -7.0, 5.0, 11.0])
    np.testing.assert_allclose(jax.jit(g.prox)(x, 1.0), [2.4, 3.2, -7.0, 0.0, 11.0])
    np.testing.assert_array_equal(np.diag(jax.jit(jax.jacrev(lambda x: g.prox(x, 1.0)))(x))[[2, 4]], 1)


@pytest.mark.parametrize("selection", (None, 0.0, 0.25, 1.0, "inside", "outside"))
def test_box_and_nonnegative_agree_at_the_same_kink(selection):
    box, orthant = prox.Box(0.0, np.inf, selection=selection), prox.Nonnegative(selection=selection)
    slopes = [float(jax.grad(lambda x, s=s: s.project(x))(0.0)) for s in (box, orthant)]
    assert slopes[0] == slopes[1] == {None: 0.5, "inside": 1.0, "outside": 0.0}.get(selection, selection)


def test_the_two_bounds_of_a_box_may_select_differently():
    box = prox.Box(0.0, 1.0, selection=("inside", "outside"))
    np.testing.assert_array_equal(jax.vmap(jax.grad(box.project))(jnp.array([0.0, 0.5, 1.0])), [1, 1, 0])


def test_infinite_and_equal_bounds_differentiate_without_nan():
    with jax.debug_nans(True):
        lo, hi = jnp.array([-jnp.inf, 0.5, -1.0]), jnp.array([jnp.inf, 0.5, jnp.inf])
        jacobians = jax.jacrev(lambda lo, hi, x: prox.Box(lo, hi).project(x), argnums=(0, 1, 2))(lo, hi, jnp.zeros(3))
    want = [np.diag([0, 0.5, 0]), np.diag([0, 0.5, 0]), np.diag([1.0, 0, 1])]
    np.testing.assert_array_equal(jacobians, want)


def test_simplex_at_a_vertex_has_the_selected_support():
    """D = diag(q) - q q^T / sum(q) with q = (1, s, s, 0): the weights of the sum are those of the entries."""
    x = jnp.array([2.0, 1.0, 1.0, 0.0])
    jacobians = jax.jit(lambda s: jax.jacrev(lambda x, t: prox.Simplex(t, selection=s).project(x), (0, 1))(x, 1.0))
    for s in (0.0, 0.3, 1.0):
        q, (J, slope) = np.array([1, s, s, 0]), jacobians(s)
        np.testing.assert_allclose(J, np.diag(q) - np.outer(q, q) / q.sum(), atol=1e-15)
        np.testing.assert_allclose(slope, q / q.sum(), atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_simplex_finds_the_kink_through_rounding(dtype, key):
    """x = y + tau with zeros in y is a kink in exact arithmetic, whatever tau: the selection decides, not the error."""
    jacobians = jax.jit(lambda x, s: jax.jacrev(lambda x: 2 * [prox.Simplex(selection=s).project(x)], has_aux=True)(x))
    for k, shift in enumerate([0.1, -3.7, 1e3]):
        y = np.asarray(jax.random.uniform(jax.random.fold_in(key, k), (5,))) + 0.1
        x = np.append(y / y.sum(), np.zeros(3)).astype(dtype) + dtype(shift)
        for s, support in ((0.0, 5), (1.0, 8)):
            J, p = jacobians(x, s)
            assert np.sum(np.diag(J) > 0) == support
            np.testing.assert_array_equal(p[5:], 0)


def test_simplex_far_away_keeps_the_sum(key):
    project = jax.jit(prox.Simplex(2.0).project)
    x = np.asarray(jax.random.normal(key, (1000,))) * 1e-3
    for shift in (0.0, 1e6):
        p = np.asarray(project(x + shift))
        assert np.all(p >= 0)
        np.testing.assert_allclose(p.sum(), 2.0, rtol=1e-13)
    np.testing.assert_array_equal(project(np.append([1e12, -1e12], 0 * x))[:3], [2, 0, 0])
    # Many small entries: none of them is rounding.
    wide = jax.jit(prox.Simplex().project)(np.float32(1e-3) * np.repeat(x, 1000).astype(np.float32))
    np.testing.assert_allclose(np.sum(wide, dtype=float), 1.0, rtol=1e-5)


def test_simplex_along_an_axis_with_one_total_each(key):
    x, total = np.asarray(jax.random.normal(key, (3, 5))), np.array([1.0, 2.0, 0.5])
    rows = jax.jit(prox.Simplex(total).project)(x)
    one = jax.jit(lambda t, r: prox.Simplex(t).project(r))
    np.testing.assert_allclose(rows, [one(t, r) for t, r in zip(total, x, strict=True)])
    np.testing.assert_allclose(jax.jit(prox.Simplex(total, axis=0).project)(x.T), rows.T)
    value = jax.jit(prox.Simplex(total).__call__)
    assert value(rows) == 0 and value(rows + 1e-6 * (x == x[1, 0])) == np.inf


def test_log_det_second_derivatives_at_repeated_eigenvalues(key):
    """All nine pairs of (Y, C, step), forward and reverse, against differences of the first derivative."""
    weights = jax.random.normal(key, (3, 3))

    def scalar(y, c, s):
        return jnp.sum(weights * jnp.sin(prox.LogDet(c).prox(y, s)))

    gradient = jax.jit(jax.grad(scalar, argnums=(0, 1, 2)))
    args = (jnp.diag(jnp.array([1.0, 1.0, -2.0])), jnp.zeros((3, 3)), jnp.float64(0.7))
    hessian = jax.jit(lambda *a: [jax.jacfwd(gradient, argnums=i)(*a) for i in range(3)])(*args)
    reverse = jax.jit(lambda *a: [jax.jacrev(gradient, argnums=i)(*a) for i in range(3)])(*args)
    h = 1e-5
    for i, arg in enumerate(args):
        for position in np.ndindex(arg.shape):
            up, down = ([a.at[position].add(d) if k == i else a for k, a in enumerate(args)] for d in (h, -h))
            want = jax.tree.map(lambda a, b: (a - b) / (2 * h), gradient(*up), gradient(*down))
            for j in range(3):
                index = (..., *position)
                np.testing.assert_allclose(hessian[i][j][index], want[j], atol=1e-8)
                np.testing.assert_allclose(reverse[i][j][index], hessian[i][j][index], atol=1e-13)


def test_log_det_keeps_small_eigenvalues():
    """u - s/u = w has the root s/|w| for very negative w, which (w + sqrt(w^2 + 4 s))/2 loses to cancellation."""
    y = np.diag([-1e8, 3.0, 1e8])
    values = jax.jit(lambda d: jnp.diag(prox.LogDet().prox(jnp.diag(d), 0.5)))
    np.testing.assert_allclose(values(np.diag(y))[::2], [0.5e-8, 1e8], rtol=1e-8)
    slopes = np.diag(jax.jit(jax.jacfwd(values))(np.diag(y)))
    np.testing.assert_allclose(slopes[::2], [0.5e-16, 1.0], rtol=1e-7)


def test_log_det_outside_its_domain():
    for x in (np.diag([1.0, -1.0]), np.diag([-1.0, -2.0]), np.diag([1.0, 0.0])):
        assert prox.LogDet()(x) == np.inf


@pytest.mark.parametrize("name", ["LeastSquares tall", "LeastSquares wide", "Quadratic"])
def test_nothing_is_factored_inside_a_loop(name):
    """Preparing once leaves only products, forward and in every derivative."""
    row = ROWS[name]
    apply = row.make(*row.params).prepare(0.5)

    def loop(x):
        return lax.scan(lambda x, _: (apply(x), None), x, None, length=3)[0]

    for fun in (loop, jax.jacfwd(loop), jax.jacrev(loop)):
        text = str(jax.make_jaxpr(fun)(V3))
        assert "dot_general" in text
        assert "cholesky" not in text and "triangular_solve" not in text
    assert "cholesky" in str(jax.make_jaxpr(lambda s: row.make(*row.params).prox(V3, s))(0.5))


def test_the_factor_is_not_differentiated():
    """The derivative of a Cholesky factor would appear as triangular solves in the derivative program."""

    def value(a):
        return jnp.sum(prox.LeastSquares(a, B).prox(V3, 0.5))

    forward, backward = (str(jax.make_jaxpr(f)(A)) for f in (value, jax.grad(value)))
    assert forward.count("triangular_solve[") == backward.count("triangular_solve[") == 1


@pytest.mark.parametrize("rows", [5, 2], ids=["tall", "wide"])
def test_least_squares_keeps_its_digits_at_large_steps(rows):
    """In the limit of an infinite step the prox is the projection on the solutions of A x = b."""
    a, b = A[:rows], A[:rows] @ np.array([1.0, -2.0, 0.5])
    limit = V3 - np.linalg.pinv(a) @ (a @ V3 - b)
    for step in (1e6, 1e10):
        np.testing.assert_allclose(prox.LeastSquares(a, b).prox(V3, step), limit, rtol=0, atol=10 / step + 1e-13)


def test_least_squares_with_several_right_hand_sides():
    x = np.stack([V3, V3 + 1, 0 * V3], axis=1)
    for a in (A, A[:2]):
        b = np.stack([B, 2 * B, -B], axis=1)[: len(a)]
        f, solve = prox.LeastSquares(a, b), jax.jit(lambda b, x, a=a: prox.LeastSquares(a, b).prox(x, 0.5))
        columns = [solve(b[:, k], x[:, k]) for k in range(3)]
        np.testing.assert_allclose(solve(b, x), np.stack(columns, axis=1), rtol=1e-13)
        np.testing.assert_allclose(f.gradient(x), a.T @ (a @ x - b), rtol=1e-13)


@pytest.mark.parametrize("rows", [5, 2], ids=["tall", "wide"])
def test_least_squares_over_the_complex_numbers(rows):
    """The prox and its derivatives are those of the real problem with twice the variables."""
    a, b = A[:rows] + 1j * A[::-1][:rows], B[:rows] * (1 - 2j)
    x = V3 + 1j * V3[::-1]
    real = prox.LeastSquares(np.block([[a.real, -a.imag], [a.imag, a.real]]), np.concatenate([b.real, b.imag]))

    def ours(v, s):
        out = prox.LeastSquares(a, b).prox(v[:3] + 1j * v[3:], s)
        return jnp.concatenate([out.real, out.imag])

    v = np.concatenate([x.real, x.imag])
    forward, reverse = jax.jit(lambda v: [mode(ours, (0, 1))(v, 0.5) for mode in (jax.jacfwd, jax.jacrev)])(v)
    want = jax.jit(jax.jacfwd(real.prox, (0, 1)))(v, 0.5)
    for got in (forward, reverse):
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-14), got, want)
    value, gradient = jax.jit(lambda x: (prox.LeastSquares(a, b)(x), prox.LeastSquares(a, b).gradient(x)))(x)
    np.testing.assert_allclose(value, real(v), rtol=1e-14)
    np.testing.assert_allclose(np.append(gradient.real, gradient.imag), jax.jit(real.gradient)(v), rtol=1e-13)


def test_steps_may_be_traced():
    f = jax.jit(lambda s: prox.LeastSquares(A, B).prox(V3, s).sum() + prox.L1(0.3).prox(V3, s).sum())
    assert jnp.isfinite(jax.grad(f)(0.5)) and f._cache_size() <= 1


@pytest.mark.parametrize("name", ["LeastSquares tall", "LogDet"])
def test_lanes_on_several_devices_share_their_parameters(name):
    """Inside shard_map, with replica checks: each device has its point, and the parameters are everyone's."""
    row, mesh = ROWS[name], jax.make_mesh((2,), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,))
    points = np.stack([row.points[0], 1.1 * row.points[0]])

    def local(params, points):
        return jnp.sin(row.make(*params).prox(points[0], row.step))[None]

    def spread(params, points):
        specs = dict(in_specs=(jax.P(), jax.P("lanes")), out_specs=jax.P("lanes"))
        return jnp.sum(jax.shard_map(local, mesh=mesh, **specs)(params, points))

    def alone(params, points):
        return sum(jnp.sum(local(params, point[None])) for point in points)

    args = jax.tree.map(jnp.asarray, (row.params, points))

    def derivatives(fun):
        return jax.jit(lambda *z: (jax.grad(fun, (0, 1))(*z), jax.jvp(jax.grad(fun, (0, 1)), z, z)[1]))(*args)

    for got, want in zip(*(jax.tree.leaves(derivatives(fun)) for fun in (spread, alone)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def loss(x, target):
    return jnp.sum(jnp.logaddexp(0.0, -target * x))


def test_smooth_functions_of_your_own():
    target = jnp.array([1.0, -1.0, 2.0])
    f = prox.smooth(loss, target, lipschitz=1.0)
    np.testing.assert_allclose(f(V3), loss(V3, target))
    np.testing.assert_allclose(f.gradient(V3), jax.grad(loss)(V3, target))
    assert f.is_smooth and f.lipschitz == 1.0 and prox.smooth(loss, target).lipschitz is None
    mixed = jax.jacrev(lambda t: prox.smooth(loss, t).gradient(V3))(target)
    np.testing.assert_allclose(mixed, jax.jacrev(jax.grad(loss), argnums=1)(V3, target))


def test_separable_parts_keep_what_they_know():
    g = prox.SeparableSum([prox.ElasticNet(1.0, 0.25), prox.SquaredL2(3.0)])
    assert g.strong_convexity == 0.25 and g.lipschitz is None and not g.is_smooth
    g = prox.SeparableSum([prox.SquaredL2(2.0), prox.SquaredL2(3.0)])
    assert g.strong_convexity == 2 and g.lipschitz == 3 and g.is_smooth
    x = [V3, V4]
    np.testing.assert_array_equal(g.gradient(x)[1], 3 * V4)


def test_rules_carry_the_constants():
    f = prox.SquaredL2(2.0)
    for g, factor in ((prox.Translate(f, 1.0), 1), (prox.PreScale(f, -3.0), 9), (prox.PostScale(f, 5.0), 5)):
        assert g.is_smooth and g.is_convex and g.strong_convexity == g.lipschitz == 2 * factor
    assert prox.Conjugate(f).strong_convexity == 0.5
    assert prox.Conjugate(prox.L1(1.0)).strong_convexity == 0
    assert prox.Translate(prox.L1(1.0), 1.0).as_quadratic is None


def test_asymmetric_quadratics_count_through_their_symmetric_part():
    f = prox.Quadratic(P, V3)
    np.testing.assert_allclose(f.gradient(V3), symmetric(P) @ V3 + V3, rtol=1e-14)
    np.testing.assert_allclose(f.prox(V3, 0.5), prox.Quadratic(symmetric(P), V3).prox(V3, 0.5), rtol=1e-14)
    np.testing.assert_allclose(f.dense(3), symmetric(P))
    np.testing.assert_allclose(prox.Quadratic(2.0).dense(3), 2 * np.eye(3))


def test_objects_cross_transformations():
    """As arguments of jit, vmap and grad, and as the state of a gradient step that leaves the domain."""
    batch = jax.vmap(lambda b: prox.LeastSquares(A, b))(np.stack([B, 2 * B]))
    assert batch.A.shape == (2, 5, 3)
    lanes = jax.jit(jax.vmap(lambda f, x: f.prox(x, 0.5), in_axes=(0, None)))(batch, V3)
    np.testing.assert_allclose(lanes[1], prox.LeastSquares(A, 2 * B).prox(V3, 0.5), rtol=1e-13)
    step = jax.tree.map(lambda p, d: p - 10 * d, prox.L1(1.0), jax.grad(lambda g: g(V3))(prox.L1(1.0)))
    assert float(step.weight) < 0
    with pytest.raises(ValueError, match="weight is -1"):
        prox.L1(-1.0)
    assert prox.LogDet(C).C is C


def test_far_from_zero_a_simplex_is_not_empty():
    """At 1e9 in float32 numbers are 64 apart: the largest takes everything, and its Jacobian is finite."""
    x = jnp.array([1e9, 1e9 - 640, 1e9 - 64], jnp.float32)
    project = prox.Simplex(1.0).project
    np.testing.assert_array_equal(jax.jit(project)(x), [1, 0, 0])
    np.testing.assert_array_equal(jax.jit(jax.jacrev(project))(x), np.zeros((3, 3)))
