"""Quadratic programs: against every active set, central differences, and what is proved where there is no solution."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import nsimplicit as nsi
from tests.cases.qp import FAILED, NAMES, SMOOTH, TWICE, program, solution

qp = nsi.layers.qp
LANES = SMOOTH | {"twice": TWICE} | {name: p for name, (p, _) in FAILED.items()}
COTANGENT = np.array([1.0, -2.0, 0.5])


def solve(P, q, A, b, G, h, lo, hi, **options):
    return qp(P, q, eq=(A, b), ineq=(G, h), bounds=(lo, hi), **options)


def everything(*args):
    """The solution, the derivative of x along a direction, the gradient of a product with x: one solve."""
    tangents = tuple(jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in args)
    out, push = jax.linearize(solve, *args)

    def moved(*tangents):
        return push(*tangents).value

    gradient = jax.linear_transpose(moved, *args)(jnp.asarray(COTANGENT, out.value.dtype))
    return out, moved(*tangents), gradient


@functools.cache
def answers(dtype=np.float64):
    """All rows as lanes of one call; per row the solution, a derivative, all gradients, in NumPy."""
    batch = [np.stack([p[name] for p in LANES.values()]).astype(dtype) for name in NAMES]
    out = jax.tree.map(np.asarray, jax.jit(jax.vmap(everything))(*batch))
    return {name: jax.tree.map(lambda x, i=i: x[i], out) for i, name in enumerate(LANES)}


@pytest.mark.parametrize("name", SMOOTH)
def test_solution(name):
    found, _, _ = answers()[name]
    assert found.status == 1
    np.testing.assert_allclose(found.value, solution(SMOOTH[name]), atol=1e-8)
    assert found.residual <= 7.5e-9


@pytest.mark.parametrize("name", SMOOTH)
def test_multipliers(name):
    p, (found, _, _) = SMOOTH[name], answers()[name]
    force = p["A"].T @ found.eq + p["G"].T @ found.ineq + found.bounds
    scale = 1 + np.abs(p["P"]).max()
    np.testing.assert_allclose(p["P"] @ found.value + p["q"] + force, 0, atol=1e-8 * scale)
    slack = np.where(np.isfinite(p["h"]), p["h"] - p["G"] @ found.value, np.inf)
    assert (found.ineq >= 0).all()
    assert (np.minimum(found.ineq, slack) <= 1e-8 * (1 + np.abs(p["G"]).max())).all()
    inside = (found.value > p["lo"] + 1e-7) & (found.value < p["hi"] - 1e-7)
    np.testing.assert_allclose(found.bounds[inside], 0, atol=1e-8 * scale)
    assert (found.bounds[found.value >= p["hi"] - 1e-7] >= -1e-8 * scale).all()


def slope(p, argument, step=1e-6):
    """Central differences of COTANGENT @ x in one argument; zero where a constraint is not there."""
    found = np.zeros_like(p[argument])
    step *= 1 + np.abs(np.nan_to_num(p[argument], posinf=0, neginf=0)).max()
    for i in np.ndindex(p[argument].shape):
        if np.isfinite(p[argument][i]):
            ends = [np.array(p[argument]) for _ in range(2)]
            ends[0][i] += step
            ends[1][i] -= step
            moved = [solution(p | {argument: (x + x.T) / 2 if argument == "P" else x}) for x in ends]
            found[i] = COTANGENT @ (moved[0] - moved[1]) / (2 * step)
    return found


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("argument", NAMES)
def test_gradient(name, argument):
    expected = slope(SMOOTH[name], argument)
    gradient = answers()[name][2][NAMES.index(argument)]
    np.testing.assert_allclose(gradient, expected, atol=1e-6 * (1 + np.abs(expected).max()))


def test_dependent_constraints():
    found, moved, gradient = answers()["twice"]
    assert found.status == 1
    np.testing.assert_allclose(found.value, solution(TWICE), atol=1e-8)
    assert (found.ineq[1:] > 0.1).all()
    for argument in ("P", "q", "b"):
        expected = slope(TWICE, argument)
        np.testing.assert_allclose(gradient[NAMES.index(argument)], expected, atol=1e-5, err_msg=argument)
    assert np.isnan(moved).all()  # the direction moves the two apart: there is no derivative


@pytest.mark.parametrize("name", SMOOTH)
def test_both_modes_agree(name):
    _, moved, gradient = answers()[name]
    directions = [np.cos(np.arange(g.size)).reshape(g.shape) for g in gradient]
    forward, backward = COTANGENT @ moved, sum((g * d).sum() for g, d in zip(gradient, directions, strict=True))
    np.testing.assert_allclose(forward, backward, rtol=1e-9)


@pytest.mark.parametrize("name", FAILED)
def test_status(name):
    found, moved, gradient = answers()[name]
    assert found.status == FAILED[name][1]
    assert not found.converged
    assert np.isnan(found.value).all()
    assert np.isnan(moved).all()
    assert np.isnan(gradient[1]).all()


def test_a_lane_that_is_not_solved():
    p = SMOOTH["definite 0"]
    options = {"tol": 0.0, "max_steps": 2, "guard": nsi.guards.Solved(on_failure="drop")}

    def value(q):
        out = solve(*(p | {"q": q}).values(), **options)
        return out.value.sum(), out

    gradient, out = jax.jit(jax.grad(value, has_aux=True))(p["q"])
    assert out.status == 0
    assert np.isfinite(out.value).all()
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.slow
def test_single_precision():
    for name, p in SMOOTH.items():
        found, _, gradient = answers(np.float32)[name]
        assert found.status == 1, name
        assert found.value.dtype == gradient[0].dtype == np.float32
        np.testing.assert_allclose(found.value, solution(p), atol=1e-3, err_msg=name)
        np.testing.assert_allclose(gradient[1], answers()[name][2][1], atol=5e-3, err_msg=name)
    for name, (_, status) in FAILED.items():
        assert answers(np.float32)[name][0].status == status, name


# --- kinks: min ½ xᵀP x + qᵀx, x >= 0, one of them as a bound and one as a row, at points where they are weakly active

P2 = np.array([[2.0, 1.0], [1.0, 3.0]])
POSITIVE = {"bounds": (jnp.array([0.0, -jnp.inf]), None), "ineq": (jnp.array([[0.0, -1.0]]), jnp.zeros(1))}
POINTS = {"corner": np.zeros(2), "edge": np.array([-2.0, -1.0])}  # x = 0, no force; x = (1, 0), none on the second
WEIGHTS = jnp.array([0.0, 0.5, 1.0])


@functools.cache
def jacobians():
    jacobian = jax.jacrev(lambda q, weight: qp(P2, q, selection=weight, **POSITIVE).value)
    every = jax.jit(jax.vmap(jax.vmap(jacobian, (None, 0)), (0, None)))
    return dict(zip(POINTS, np.asarray(every(np.array(list(POINTS.values())), WEIGHTS)), strict=True))


def vertices(point):
    """The Jacobians of the active sets around a point: minus the inverse on the free variables."""
    frees = itertools.product((0, 1), repeat=2) if point == "corner" else [(1, 0), (1, 1)]
    for free in map(np.flatnonzero, frees):
        J = np.zeros((2, 2))
        J[np.ix_(free, free)] = -np.linalg.inv(P2[np.ix_(free, free)])
        yield J


@pytest.mark.parametrize("point", POINTS)
def test_the_selection_names_an_element_of_the_clarke_set(point):
    inactive, half, active = jacobians()[point]
    found = list(vertices(point))
    np.testing.assert_allclose(inactive, -np.linalg.inv(P2), atol=1e-12)
    np.testing.assert_allclose(active, found[0], atol=1e-12)
    columns = np.array([np.append(J.ravel(), 1.0) for J in found]).T
    _, miss = scipy.optimize.nnls(columns, np.append(half.ravel(), 1.0))
    assert miss <= 1e-12, "not a convex combination of the Jacobians around the point"
    assert all(np.abs(half - J).max() > 0.01 for J in found)


ROWS = (-jnp.eye(2), jnp.zeros(2))


@pytest.mark.parametrize(("name", "weight"), [("active", 1), ("inactive", 0), ("mean", 0.5), (0.25, 0.25), (None, 0)])
def test_names(name, weight):
    z, equation = qp.formulate(jnp.eye(2), jnp.zeros(2), ineq=ROWS, selection=name)
    forward, prox = equation.maps
    _, through = jax.jvp(prox, (forward(z),), (jax.tree.map(jnp.ones_like, z),))
    np.testing.assert_array_equal(through[2], weight)


def test_a_surrounding_selection():
    def value(q):
        return qp(jnp.eye(1), q, bounds=(0.0, None)).value[0]

    gradient = jax.jit(jax.grad(nsi.with_selection(value, {"relu": 0.75})))
    np.testing.assert_allclose(gradient(jnp.zeros(1)), -0.25)


@pytest.mark.parametrize(
    ("G", "curvature", "code", "kinks"),
    [
        ([[-1.0, 0.0], [0.0, -1.0]], 1.0, 1, 2),  # two independent constraints, both weakly active
        ([[-1.0, 0.0], [-2.0, 0.0]], 1.0, -1, 2),  # dependent ones
        ([[-1.0, 0.0], [1.0, 1.0]], 0.0, -1, 2),  # no curvature where none of them is positive
    ],
    ids=["regular", "dependent", "flat"],
)
def test_certify(G, curvature, code, kinks):
    P = jnp.diag(jnp.array([2.0, curvature])) + curvature
    found = nsi.certify(qp)(P, jnp.zeros(2), ineq=(jnp.array(G), jnp.zeros(2)))
    assert found.code == code
    assert found.num_kinks == kinks or code == -1


@pytest.mark.slow
def test_second_order():
    q = np.array([-1.0, -2.0])

    def value(t):
        return jnp.sum(jnp.sin(qp(P2 * (1 + t**2), q * jnp.exp(t), bounds=(0.0, None)).value))

    def smooth(t):
        return jnp.sum(jnp.sin(jnp.linalg.solve(P2 * (1 + t**2), -q * jnp.exp(t))))

    second = [jax.jit(jax.grad(jax.grad(f)))(0.3) for f in (value, smooth)]
    np.testing.assert_allclose(*second, rtol=1e-9)


@pytest.mark.slow
def test_more_variables_than_are_eliminated_in_plain_xla():
    rng = np.random.default_rng(0)
    A, y = rng.normal(size=(3, 30, 20)), rng.normal(size=(3, 30))
    P, q = np.einsum("bij,bik->bjk", A, A), -np.einsum("bij,bi->bj", A, y)
    P[2], q[2] = 0, 1 + rng.uniform(size=20)  # a linear program, which active sets alone do not solve

    @jax.jit
    @jax.vmap
    def both(P, q):
        def loss(q, tap):
            out = qp(P, q, bounds=(0.0, None), tap=tap)
            return jnp.sum(out.value**2) / 2, out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(q, nsi.tap())

    (gradient, report), out = both(P, q)
    assert (out.status == 1).all()
    np.testing.assert_array_equal(report.num_failures, 0)
    for lane in range(2):
        x, _ = scipy.optimize.nnls(A[lane], y[lane])
        np.testing.assert_allclose(out.value[lane], x, atol=1e-8)
        free, slope = x > 0, np.zeros(20)
        slope[free] = -np.linalg.solve(P[lane][np.ix_(free, free)], x[free])
        np.testing.assert_allclose(gradient[lane], slope, atol=1e-10)
    np.testing.assert_allclose(out.value[2], 0, atol=1e-8)


def test_gradients_lower_everywhere():
    def loss(q, G):
        return qp(jnp.eye(20), q, ineq=(G, jnp.ones(2))).value.sum()

    gradient = jax.jit(jax.vmap(jax.grad(loss)))
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 20), (4, 2, 20))]
    exported = jax.export.export(gradient, platforms=("cpu", "cuda", "tpu", "rocm"))(*shapes)
    assert exported.out_avals[0].shape == (4, 20)
    products = [line for line in exported.mlir_module().splitlines() if "= stablehlo.dot_general" in line]
    assert products and all("precision = [HIGHEST, HIGHEST]" in line for line in products)


GOOD = {name: program(0)[name] for name in NAMES}
MISTAKES = {
    "a matrix that is not square": (lambda: qp(jnp.ones((2, 3)), jnp.ones(2)), r"P has shape \(2, 3\)"),
    "a batch": (lambda: qp(jnp.ones((4, 2, 2)), jnp.ones((4, 2))), "jax.vmap"),
    "no variable": (lambda: qp(jnp.ones((0, 0)), jnp.ones(0)), "at least one number"),
    "a negative eigenvalue": (lambda: qp(-jnp.eye(2), jnp.ones(2)), "smallest eigenvalue of P is -1"),
    "nan": (lambda: qp(jnp.eye(2), jnp.array([jnp.nan, 0])), r"q\[0\] is nan"),
    "infinity": (lambda: qp(jnp.eye(2), jnp.ones(2), bounds=(jnp.inf, None)), r"lo\[0\] is inf"),
    "no pair": (lambda: qp(jnp.eye(2), jnp.ones(2), eq=jnp.ones((1, 2))), r"eq=\(A, b\)"),
    "columns": (lambda: qp(jnp.eye(2), jnp.ones(2), ineq=(jnp.ones((1, 3)), jnp.ones(1))), r"G has shape \(1, 3\)"),
    "rows": (lambda: qp(jnp.eye(2), jnp.ones(2), eq=(jnp.ones((1, 2)), jnp.ones(2))), r"b has shape \(2,\)"),
    "bounds": (lambda: qp(jnp.eye(2), jnp.ones(2), bounds=(None, jnp.ones(3))), r"hi has shape \(3,\)"),
    "complex": (lambda: qp(jnp.eye(2), jnp.ones(2) * 1j), "complex"),
    "a name": (lambda: qp(jnp.eye(2), jnp.ones(2), selection="above"), "active, inactive, mean"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake):
    call, match = MISTAKES[mistake]
    with pytest.raises(nsi.InputError, match=match):
        call()


def test_matrices_may_be_functions():
    """By their images of the unit vectors; what they close over is differentiated."""
    q, root = jnp.array([1.0, -2.0, 0.5]), jnp.array([[2.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.1, 0.0, 1.5]])

    def value(root, function):
        P, A, G = root.T @ root, root[:1], -root[1:]
        matrices = [(lambda v, M=M: M @ v) if function else M for M in (P, A, G)]
        answer = nsi.layers.qp(matrices[0], q, eq=(matrices[1], jnp.ones(1)), ineq=(matrices[2], jnp.zeros(2)))
        return jnp.sum(answer.value**2), answer.status

    both = [jax.jit(jax.value_and_grad(functools.partial(value, function=f), has_aux=True))(root) for f in (0, 1)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14), *both)
    assert both[0][0][1] == 1
    certify = nsi.certify(nsi.layers.qp)
    assert certify(lambda v: v, q, bounds=(0.0, None)).code == certify(jnp.eye(3), q, bounds=(0.0, None)).code
    with pytest.raises(nsi.InputError, match="images of 3 vectors"):
        nsi.layers.qp(lambda v: v.sum(), q)


def test_empty_sets_of_constraints():
    eye, q = jnp.eye(2), jnp.array([1.0, -1.0])
    none = (jnp.zeros((0, 2)), jnp.zeros(0))
    found = qp(eye, q, eq=none, ineq=none)
    assert isinstance(found, nsi.layers.QPSolution)
    assert found.status == 1
    assert found.eq.shape == found.ineq.shape == (0,)
    np.testing.assert_allclose(found.value, -q)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps():
    def megabytes(steps):
        gradient = jax.grad(lambda q: solve(*(GOOD | {"q": q}).values(), max_steps=steps).value.sum())
        found = jax.jit(gradient).lower(GOOD["q"]).compile().memory_analysis()
        return found.temp_size_in_bytes

    assert megabytes(10) == megabytes(1000)


@pytest.mark.slow
def test_two_hundred_batches():
    """Batched LAPACK calls inside loops have stopped for ever: these are not made."""

    @jax.jit
    def step(q, key):
        G = jax.random.normal(key, (64, 20, 20))
        h = 0.1 + jax.random.uniform(key, (64, 20))
        out, pull = jax.vjp(jax.vmap(lambda q, G, h: qp(jnp.eye(20), q, ineq=(G, h)).value), q, G, h)
        return 0.5 * q + out + pull(out)[0], jnp.isfinite(out).all()

    q = jnp.ones((64, 20))
    for key in jax.random.split(jax.random.key(0), 200):
        q, fine = step(q, key)
        assert fine
