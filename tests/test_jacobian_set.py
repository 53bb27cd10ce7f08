"""Sets of Jacobians: known examples, and the laws that hold for every normal form.

Oracles: closed forms from the literature, finite differences of programs run on numbers, LARS for the Lasso.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import lars_path

import nsimplicit as nsi
from nsimplicit.calculus.clarke import clarke, implicit_clarke
from nsimplicit.calculus.jacobian_set import JacobianSet, conservative, excess, implicit
from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.calculus.normal_form import normal_form as calculus_form
from nsimplicit.calculus.patterns import realised
from tests.by_hand import CLARKE_INVERSES, Numbers, clarke_inverse, clarke_map, normal_form, random_program

WITNESS = np.array([[0, 2 / 3], [4 / 3, 0]])
SHAPES = {  # inputs, outputs, kinks in each layer
    "one layer": (3, 2, (4,)),
    "two layers": (3, 3, (3, 2)),
    "three layers": (2, 2, (2, 2, 1)),
    "more kinks than inputs": (2, 2, (7,)),
}


def same_points(found, expected, *, tolerance=1e-12):
    """Both inclusions, as sets of matrices."""
    found, expected = np.asarray(found), np.asarray(expected)
    apart = np.max(np.abs(found[:, None] - expected[None]), axis=(2, 3))
    return np.all(apart.min(axis=0) <= tolerance) and np.all(apart.min(axis=1) <= tolerance)


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def law(request):
    n, m, widths = SHAPES[request.param]
    program = random_program(len(request.param), n, m, widths)
    return program, normal_form(program, n)


class TestClarkesInverse:
    """F(x, y) = (|x| + y, 2x + |y|): the inverse's Clarke Jacobian is larger than the set of inverses."""

    form = normal_form(clarke_map, 2)
    equation = normal_form(clarke_map, 4)

    def test_forward_set_is_all_of_two_slopes(self):
        vertices = conservative(self.form).vertices()
        signs = np.array(list(itertools.product([-1, 1], repeat=2)))
        assert same_points(vertices, [[[a, 1], [2, b]] for a, b in signs])
        assert sorted(np.linalg.det(vertices).round(12)) == [-3, -3, -1, -1]
        assert np.linalg.svd(vertices, compute_uv=False).min() == pytest.approx((3 - 5**0.5) / 2, abs=1e-12)
        assert conservative(self.form).dimension() == 2
        assert clarke(self.form, True).label == "Clarke (exact)"
        assert same_points(clarke(self.form, True).vertices(), vertices)

    def test_least_singular_value_on_the_box_is_at_a_vertex(self, key):
        sigma = np.linalg.svd(conservative(self.form).sample(key, 500), compute_uv=False)
        assert 0.381966 < sigma.min() < 0.6

    def test_inverse_set_has_one_dimension_more(self):
        for made in (implicit(self.equation, 2), implicit_clarke(self.equation, 2, True)):
            assert same_points(made.vertices(), CLARKE_INVERSES)
            assert made.dimension() == 3

    def test_each_inverse_holds_on_its_cone(self, key):
        for theta in np.asarray(jax.random.normal(key, (200, 2))):
            i = np.argmin(np.max(np.abs(CLARKE_INVERSES @ theta - clarke_inverse(*theta)), axis=1))
            np.testing.assert_allclose(CLARKE_INVERSES[i] @ theta, clarke_inverse(*theta), atol=1e-14)
            np.testing.assert_allclose(clarke_map(Numbers, *clarke_inverse(*theta)), theta, atol=1e-14)

    def test_witness(self):
        np.testing.assert_allclose(CLARKE_INVERSES.mean(axis=0), WITNESS, atol=1e-15)
        assert implicit_clarke(self.equation, 2, True).contains(WITNESS)
        assert not implicit(self.equation, 2).contains(WITNESS)
        assert not conservative(self.form).contains(np.linalg.inv(WITNESS))
        assert conservative(self.form).contains([[0, 1], [2, 0]])  # sign(0) = 0: in the hull, no vertex

    def test_gap_between_the_inverses_and_their_hull(self):
        forward, backward = conservative(self.form), implicit(self.equation, 2)
        assert excess(backward, implicit_clarke(self.equation, 2, True)) < 1e-12
        # [[α, 1], [2, β]] is nearest to the inverse of the piece x, y > 0.
        assert excess([np.linalg.inv(WITNESS)], forward) == pytest.approx(np.hypot(0.25, 0.5), abs=1e-12)


PROGRAMS = {  # of one scalar: the program's interval of slopes, the function's
    "relu": (lambda ops, x: ops.relu(x), (0, 1), (0, 1)),
    "abs": (lambda ops, x: ops.abs(x), (-1, 1), (-1, 1)),
    "relu coded otherwise": (lambda ops, x: ops.relu(-x) + x, (0, 1), (0, 1)),
    "mean of both codings": (lambda ops, x: (ops.relu(x) + ops.relu(-x) + x) / 2, (0, 1), (0, 1)),
    "zero": (lambda ops, x: ops.relu(-x) + x - ops.relu(x), (-1, 1), (0, 0)),
    "100 zero": (lambda ops, x: 100 * (ops.relu(-x) + x - ops.relu(x)), (-100, 100), (0, 0)),
    "|x| - |x|": (lambda ops, x: ops.abs(x) - ops.abs(x), (-2, 2), (0, 0)),
    "identity": (lambda ops, x: ops.relu(x) - ops.relu(-x), (0, 2), (1, 1)),
    "max - min with 0": (lambda ops, x: ops.relu(x) - (x - ops.relu(x)), (-1, 1), (-1, 1)),
    "relu of relu": (lambda ops, x: ops.relu(ops.relu(x)), (0, 1), (0, 1)),
    "relu of -relu": (lambda ops, x: ops.relu(-ops.relu(x)), (-1, 0), (0, 0)),
    "abs of abs": (lambda ops, x: ops.abs(ops.abs(x)), (-1, 1), (-1, 1)),
    "tanh with artefacts": (lambda ops, x: x + ops.relu(-x) + x - ops.relu(x), (0, 2), (1, 1)),
    "smooth": (lambda ops, x: 3 * x, (3, 3), (3, 3)),
}


@pytest.mark.parametrize("name", PROGRAMS, ids=str)
def test_program_and_function(name, key):
    program, formal, true = PROGRAMS[name]
    form = normal_form(program, 1)
    for made, (low, high) in [(conservative(form), formal), (clarke(form, True), true)]:
        vertices = made.vertices()
        assert (vertices.min(), vertices.max()) == pytest.approx((low, high), abs=1e-12)
        assert made.dimension() == (low < high)
        assert made.contains([[(low + high) / 2]]) and not made.contains([[high + 1e-3]])
        assert np.all((made.sample(key, 20) >= low - 1e-12) & (made.sample(key, 20) <= high + 1e-12))
    assert clarke(form, True).label == "Clarke (exact)"


def test_two_readings_of_tanh():
    # f(z) = tanh z + relu(-z) + z - relu(z) is tanh; its program's slopes at 0 are [0, 2].
    def f(ops, z):
        return z + ops.relu(-z) + z - ops.relu(z)

    inverse = normal_form(lambda ops, z, x: x - f(ops, z), 2)  # z = artanh x: the program's set is singular
    with pytest.raises(nsi.DerivativeError, match=r"B\(s\) is singular at s = \[1.0, 1.0\]"):
        implicit(inverse, 1)
    assert implicit_clarke(inverse, 1, True).vertices().ravel() == pytest.approx([1])
    assert -1 / np.asarray(inverse.jacobian([0, 0]))[0, 0] == 0.5  # what JAX's own selection gives
    forward = normal_form(lambda ops, z, x: z - f(ops, x), 2)  # z = tanh x
    vertices = implicit(forward, 1).vertices()
    assert (vertices.min(), vertices.max()) == (0, 2)
    assert implicit_clarke(forward, 1, True).vertices().ravel() == pytest.approx([1])


def lasso_at_knot(seed=0, knot=2, step=0.1, duplicate=False):
    """The normal form in (β, θ) of β - prox(β - step Xᵀ(Xβ - y)), weight e^θ, where a coefficient enters."""
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(8, 4)), rng.normal(size=8)
    weights, _, path = lars_path(X, y, method="lasso")
    weights, slopes = weights * len(y), np.diff(path) / np.diff(weights * len(y))
    weight, b, slopes = weights[knot], path[:, knot], weights[knot] * slopes[:, knot - 1 : knot + 1]
    if duplicate:  # a copy of a column in the support, with coefficient 0
        X, b = np.column_stack([X, X[:, np.argmax(np.abs(b))]]), np.append(b, 0)
    correlation = X.T @ (y - X @ b)
    tied = np.abs(np.abs(correlation) - weight) < 1e-9 * weight
    sign, support = np.where(tied, np.sign(correlation), 0), np.abs(b) > 1e-9
    assert tied.sum() == support.sum() + 1 + duplicate

    def residual(ops, *inputs):
        b, theta = inputs[:-1], inputs[-1]
        out = []
        for j, gram in enumerate(X.T @ X):
            # Along sign_j, past the threshold: through on the support, a kink where the tie is.
            past = sign[j] * (b[j] - step * sum(g * v for g, v in zip(gram, b, strict=True))) - step * weight * theta
            out.append(b[j] - sign[j] * (past if support[j] else ops.relu(past)) if tied[j] else b[j])
        return out

    E = np.flatnonzero(tied)
    return normal_form(residual, len(b) + 1), weight, slopes, X[:, E].T @ X[:, E], sign[E], support[E], E


@pytest.mark.parametrize("step", [1.0, 0.3, 0.05], ids="step {}".format)
def test_lasso_where_a_coefficient_enters(step):
    form, weight, slopes, G, sign, support, E = lasso_at_knot(step=step)
    found = implicit(form, 4)
    assert form.num_kinks == 1
    # Columns of `slopes`: dβ/dθ for a larger weight, where the coefficient is still 0, and for a smaller one.
    assert same_points(found.vertices(), slopes.T[:, :, None], tolerance=1e-9)
    for q in (0.0, 0.5, 1.0):
        Q = np.diag(np.where(support, 1.0, q))
        formula = -step * weight * np.linalg.solve(np.eye(len(E)) - Q @ (np.eye(len(E)) - step * G), Q @ sign)
        np.testing.assert_allclose(found.select([q])[E, 0], formula, atol=1e-10 * weight)
    assert found.dimension() == 1
    assert implicit_clarke(form, 4, True).label == "Clarke (exact)"
    assert excess(found, implicit_clarke(form, 4, True)) < 1e-9


def test_lasso_half_a_selection_depends_on_the_step():
    # The set is the segment between both slopes whatever the step is; where on it s = 1/2 lies is not.
    halves = [implicit(lasso_at_knot(step=step)[0], 4).select([0.5]) for step in (1.0, 0.3)]
    assert np.linalg.norm(halves[0] - halves[1]) > 0.01
    assert implicit(lasso_at_knot(step=0.3)[0], 4).contains(halves[0])


def test_lasso_with_a_duplicated_column_is_singular():
    form = lasso_at_knot(duplicate=True)[0]
    with pytest.raises(nsi.DerivativeError, match="B\\(s\\) is singular at s = .*1.0"):
        implicit(form, 5)


def test_a_vertex_of_a_box_is_singular_where_its_middle_is_not():
    # s = clip(s + h, 0, (3, 5)) at the vertex 0: jnp.clip's one half has det 1/4.
    def residual(ops, a, b, h):
        return [a - ops.relu(a + h), b - ops.relu(b + h)]

    form = normal_form(residual, 3)
    assert np.linalg.det(form.jacobian([0.5, 0.5])[:, :2]) == pytest.approx(0.25)
    with pytest.raises(nsi.DerivativeError, match="singular"):
        implicit(form, 2)


def test_a_singular_selection_between_regular_vertices_is_named():
    form = normal_form(lambda ops, z, x: ops.abs(z) + 0.5 * z - x, 2)  # slopes -1/2 and 3/2
    with pytest.raises(
        nsi.DerivativeError, match=r"positive at s = \[1.0\], negative at \[0.0\], and zero at s = \[0.25\]"
    ):
        implicit(form, 1)
    with pytest.raises(nsi.DerivativeError, match="negative"):
        implicit_clarke(form, 1, True)


def test_jacobian_is_affine_in_each_selection(law, key):
    _, form = law
    s = np.asarray(jax.random.uniform(key, (form.num_kinks,)))
    for i in range(form.num_kinks):
        low, high = s.copy(), s.copy()
        low[i], high[i] = 0, 1
        mean = (1 - s[i]) * form.jacobian(low) + s[i] * form.jacobian(high)
        np.testing.assert_allclose(form.jacobian(s), mean, atol=1e-12)


def test_jacobian_is_affine_in_all_selections_when_no_kink_acts_on_another(key):
    s, t = np.asarray(jax.random.uniform(key, (2, 4)))
    for widths, affine in [((4,), True), ((2, 2), False)]:
        form = normal_form(random_program(0, 3, 2, widths), 3)
        mean = (form.jacobian(s) + form.jacobian(t)) / 2
        assert np.any(form.coupling) != affine
        assert np.allclose(form.jacobian((s + t) / 2), mean, atol=1e-12) == affine


@pytest.mark.parametrize("seed", range(5))
def test_determinant_identity(seed, key):
    # det J(s) = det J(0) · det(I - S Q), Q = E - C J(0)⁻¹ G.
    form = normal_form(random_program(seed, 3, 3, (3, 3)), 3)
    M0, G, C, E = (np.asarray(x) for x in (form.base, form.gain, form.into, form.coupling))
    Q = E - C @ np.linalg.solve(M0, G)
    for s in np.asarray(jax.random.uniform(key, (5, 6))):
        identity = np.linalg.det(M0) * np.linalg.det(np.eye(6) - s[:, None] * Q)
        np.testing.assert_allclose(np.linalg.det(form.jacobian(s)), identity, rtol=1e-10, atol=1e-12)


def test_set_contains_what_it_samples_and_selects(law, key):
    _, form = law
    for made in (conservative(form), clarke(form, True)):
        samples = made.sample(key, 4)
        assert samples.shape == (4, *form.base.shape)
        assert all(made.contains(x) for x in samples)
        assert all(made.contains(x) for x in made.vertices()[:4])
        assert not made.contains(samples[0] + 10)
        assert excess(samples, made) < 1e-9 < 5 < excess(samples + 10, made)
    assert excess(clarke(form, True), conservative(form)) < 1e-9


def slopes(function, points, *, step=1e-9):
    """The Jacobians (N, m, n) of a piecewise linear function of scalars at many points (N, n)."""
    here = np.stack(function(*points.T))
    ahead = [np.stack(function(*(points + step * e).T)) for e in np.eye(points.shape[1])]
    return np.stack([(there - here) / step for there in ahead]).transpose(2, 1, 0)


def test_clarke_vertices_are_the_jacobians_nearby(law, key):
    program, form = law
    n = form.base.shape[1]
    made = clarke(form, True)
    assert made.label == "Clarke (exact)"
    # Random points meet wide cones; the narrow ones are where they are said to be.
    points = np.vstack([jax.random.normal(key, (300, n)), realised(form).directions])
    assert same_points(made.vertices(), slopes(lambda *x: program(Numbers, *x), points), tolerance=1e-5)


@pytest.mark.parametrize("name", ["two layers"])
def test_forms_by_hand_are_those_read_off_a_program(name, key):
    n, m, widths = SHAPES[name]
    program = random_program(3, n, m, widths)

    class Jax:
        relu, abs = staticmethod(jax.nn.relu), staticmethod(jnp.abs)

    by_hand, read = normal_form(program, n), calculus_form(lambda x: jnp.stack(program(Jax, *x)))(jnp.zeros(n))
    assert same_points(conservative(by_hand).vertices(), conservative(read).vertices())
    assert same_points(clarke(by_hand, True).vertices(), clarke(read, True).vertices())


def test_no_more_patterns_than_cones():
    # k lines through the origin part the plane into 2k cones, k planes part space into k(k - 1) + 2.
    for n, cones in [(2, 24), (3, 134)]:
        form = normal_form(random_program(1, n, 1, (12,)), n)
        assert len(realised(form).patterns) == len(clarke(form, True).vertices()) == cones


def picard(program, num_solution):
    """θ ↦ z with program(z, θ) = z."""

    def solve(*theta):
        z = [0 * theta[0]] * num_solution
        for _ in range(100):
            z = program(Numbers, *z, *theta)
        return z

    return solve


@pytest.mark.parametrize("seed", range(6))
def test_vertices_of_the_solution_map_are_its_limits(seed):
    """T is a contraction, so z = T(z, θ) has one solution; its derivatives at many θ are the vertices and no others."""
    m, p = 2, 2
    raw = random_program(seed, m + p, m, (2, 2), size=0.5)

    def T(ops, *inputs):
        return [0.2 * t for t in raw(ops, *inputs)]

    def residual(ops, *inputs):
        return [t - z for t, z in zip(T(ops, *inputs), inputs[:m], strict=True)]

    form = normal_form(residual, m + p)
    made = implicit_clarke(form, m, True)
    assert made.label == "Clarke (exact)"
    angles = np.linspace(0, 2 * np.pi, 2000) + 0.01
    limits = slopes(picard(T, m), np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert same_points(made.vertices(), limits, tolerance=1e-5)
    assert excess(made, implicit(form, m)) < 1e-9
    assert excess(implicit(form, m).sample(jax.random.key(seed), 50), implicit(form, m)) < 1e-9


def test_branches_without_a_direction_make_an_inner_bound():
    # relu(y) - relu(y - x²) is y on the strip 0 < y < x², which first derivatives at 0 do not see.
    form = normal_form(lambda ops, x, y: ops.relu(y) - ops.relu(y), 2)
    assert clarke(form, True).label == "Clarke (exact)"
    assert clarke(form, False).label == "Clarke (inner bound)"
    assert clarke(form, False).vertices().tolist() == [[[0, 0]]]
    assert conservative(form).contains([[0, 1]])


def test_independent_kinks_are_exact_whatever_bends():
    form = normal_form(lambda ops, x, y: ops.relu(x + y) + ops.abs(x), 2)
    assert clarke(form, False).label == "Clarke (exact)"
    equation = normal_form(lambda ops, z, x: 2 * z + ops.relu(z + x), 2)
    assert implicit_clarke(equation, 1, False).label == "Clarke (exact)"


def test_a_kink_that_first_derivatives_do_not_see():
    flat = normal_form(lambda ops, x: ops.switch(0 * x, x, 0 * x), 1)  # switch(x³, x, 0)
    with pytest.raises(nsi.DerivativeError, match="first derivatives give no direction"):
        clarke(flat, False)
    inert = normal_form(lambda ops, x: x + ops.switch(0 * x, 0 * x, 0 * x), 1)  # x + relu(x²)
    assert clarke(inert, False).vertices().tolist() == [[[1.0]]]


def test_a_kink_seen_from_one_side_only():
    # Where relu(x) is 0 the second switch stays at 0 too, and its branches part.
    form = normal_form(lambda ops, x, y: ops.switch(ops.relu(x), y, 0 * y), 2)
    assert clarke(form, True).label == "Clarke (inner bound)"
    assert clarke(form, True).vertices().tolist() == [[[0, 1]]]


def test_vertices_equal_to_rounding_are_one():
    # 0.1 + 0.2 - 0.3 is 5e-17.
    form = normal_form(lambda ops, x: ops.relu(0.1 * x) + ops.relu(0.2 * x) - ops.relu(0.3 * x), 1)
    assert np.sort(conservative(form).vertices().ravel()) == pytest.approx(np.arange(-3, 4) / 10)


def test_kinks_that_never_occur_together_do_not_count():
    # relu(-z) + z - relu(z) is 0: only z + x = 0 remains, and the program's own set is singular.
    form = normal_form(lambda ops, z, x: z + 1.5 * (ops.relu(-z) + z - ops.relu(z)) + x, 2)
    with pytest.raises(nsi.DerivativeError):
        implicit(form, 1)
    assert implicit_clarke(form, 1, True).vertices().tolist() == [[[-1.0]]]


@pytest.mark.parametrize("num_parameters", [1, 2])
def test_solution_passes_through_fewer_branches_than_there_are(num_parameters):
    # z = x and w = |z| + |z - 2x|: near 0 the second argument has the sign opposite to the first's.
    def residual(ops, z, w, x, *rest):
        return [z - x - sum(rest), w - ops.abs(z) - ops.abs(z - 2 * x - 2 * sum(rest))]

    form = normal_form(residual, 2 + num_parameters)
    assert len(clarke(form, True).vertices()) == 4
    found = implicit_clarke(form, 2, True)
    assert sorted(found.vertices()[:, 1, 0]) == [-2, 2]
    assert sorted(implicit(form, 2).vertices()[:, 1, 0]) == [-2, 0, 2]


def test_excess_is_one_sided():
    assert excess([[0.0], [5.0]], [[1.0], [2.0]]) == pytest.approx(3)
    assert excess([[1.0], [2.0]], [[0.0], [5.0]]) == pytest.approx(0, abs=1e-12)


def test_compass_difference_is_a_clarke_element():
    # For scalar functions of two variables: half of f'(x; e) - f'(x; -e) for each unit vector e.
    for seed in range(8):
        program = random_program(seed, 2, 1, (3, 1))
        compass = [[(program(Numbers, *e)[0] - program(Numbers, *-e)[0]) / 2 for e in np.eye(2)]]
        assert clarke(normal_form(program, 2), True).contains(compass)


def test_no_kinks():
    form = normal_form(lambda ops, x, y: [2 * x + y], 2)
    for made in (conservative(form), clarke(form, False)):
        assert made.vertices().tolist() == [[[2, 1]]]
        assert made.select([]).tolist() == [[2, 1]]
        assert made.dimension() == 0
        assert made.contains([[2, 1]]) and not made.contains([[2, 1.1]])
        assert made.sample(jax.random.key(0), 3).shape == (3, 1, 2)
    assert clarke(form, False).label == "Clarke (exact)"
    assert implicit(form, 1).vertices().tolist() == [[[-0.5]]]


def test_single_precision():
    form = normal_form(random_program(0, 3, 3, (3, 2)), 3, jnp.float32)
    reference = normal_form(random_program(0, 3, 3, (3, 2)), 3)
    for make in (conservative, lambda f: clarke(f, True)):
        assert len(make(form).vertices()) == len(make(reference).vertices())
        assert make(form).contains(make(reference).vertices()[0])
        assert make(form).dimension() == make(reference).dimension()


def test_more_kinks_than_can_be_enumerated():
    k = 20
    form = NormalForm(
        jnp.zeros((1, 1)), jnp.ones((1, k)), jnp.ones((k, 1)), jnp.zeros((k, k)), jnp.ones((k, 1)), jnp.zeros((k, k))
    )
    made = conservative(form)
    with pytest.raises(nsi.InputError, match=r"`JacobianSet.vertices\(\)`: 20 active kinks, that is 2\^20"):
        made.vertices()
    assert made.contains([[7.3]]) and not made.contains([[20.1]])
    assert "too many" in str(made)
    assert clarke(form, True).vertices().ravel().tolist() == [0, k]


WRONG = {
    "wrong length": (lambda form: conservative(form).select([0]), "There are 2 active kinks"),
    "weight above 1": (lambda form: conservative(form).select([0, 1.5]), "weight in \\[0, 1\\]"),
    "pattern of no direction": (lambda form: clarke(form, True).select([0, 0]), "none of the 2 patterns"),
    "no square equation": (lambda form: implicit(form, 2), "num_solution = 2, and the Jacobian is 1 × 1"),
}


@pytest.mark.parametrize("name", WRONG, ids=str)
def test_wrong_arguments(name):
    call, match = WRONG[name]
    with pytest.raises(nsi.InputError, match=match):
        call(normal_form(PROGRAMS["identity"][0], 1))


def test_prints_as_one_screen():
    made = conservative(normal_form(clarke_map, 2))
    assert str(made).splitlines() == [
        "JacobianSet of 2 × 2 matrices, formal product",
        "  kinks      2",
        "    kink 0",
        "    kink 1",
        "  vertices   4",
        "  dimension  2",
        "  entries    [-1, 1]        1",
        "                   2  [-1, 1]",
    ]
    assert repr(made) == str(made)
    assert made._repr_html_() == f"<pre>{made}</pre>"
    twice = dataclasses.replace(made.form, names=("relu at f.py:1",) * 2)
    assert str(conservative(twice)).splitlines()[2] == "    relu at f.py:1 (2)"
    wide = JacobianSet(normal_form(lambda ops, *x: [sum(x)] * 9, 9), "formal product")
    assert len(str(wide).splitlines()) < 25 and max(map(len, str(wide).splitlines())) < 100
