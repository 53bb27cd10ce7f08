"""Cheap tests, the decision made of them, witnesses, and lower bounds on smallest singular values."""

import time
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.calculus.normal_form import NormalForm
from nsimplicit.certificates import (
    contraction_bound,
    decide,
    hull_bound,
    monotone_bound,
    smallest_singular_value,
    witness,
)
from nsimplicit.certificates.cheap_tests import CERTIFICATES, REFUTATIONS, determinant_sign, kink_matrix
from nsimplicit.certificates.decision import CHOLESKY, MINORS
from tests.test_p_matrix import exact_minors, exact_sign, nearly_singular, symmetric

EPS = np.finfo(np.float64).eps
TESTS = [*CERTIFICATES, *REFUTATIONS, CHOLESKY, MINORS]
ROTATION = np.array([[0.0, 1.0], [-1.0, 0.0]])


def exact_minor(q, subset):
    """The sign of a principal minor of I - Q, without rounding."""
    return exact_sign(-q[np.ix_(subset, subset)], identity=1)


# What each test decides and the tests before it do not.
DECIDED = {
    "norm of Q below one": (0.9 * ROTATION, 1),
    "symmetric part of I - Q positive definite": (3 * ROTATION, 1),
    "spectral radius of |Q| below one": (np.array([[0.0, 9.0], [0.1, 0.0]]), 1),
    "I - Q an H-matrix with positive diagonal": (np.array([[-3.0, 9.0], [0.3, 0.0]]), 1),
    "diagonal entry of I - Q not positive": (np.diag([1.0, 0.5]), -1),
    "2 by 2 minor of I - Q not positive": (np.array([[0.0, 3.0], [0.5, 0.0]]), -1),
    "determinant of I - Q not positive": (0.6 * (np.ones((3, 3)) - np.eye(3)), -1),
    CHOLESKY: (-0.6 * np.array([[0.0, 10, 100], [0.1, 0, 10], [0.01, 0.1, 0]]), 1),
    MINORS: (np.array([[0.0, -30.0], [1.0, 0.0]]), 1),
}


@pytest.mark.parametrize("method", TESTS)
def test_each_test_decides_something(method):
    q, code = DECIDED[method]
    decision = decide(q)
    assert (decision.method, decision.code, decision.reason) == (method, code, "")
    assert (0 < decision.margin <= 1) if code == 1 else decision.subset.any()
    if code == -1:
        assert exact_minor(q, np.flatnonzero(decision.subset)) <= 0
        s = witness(decision.subset, q, 1e-14)
        assert abs(np.linalg.det(np.eye(len(q)) - s[:, None] * q)) < 1e-14


@pytest.mark.parametrize("k", range(1, 6))
def test_integer_matrices_against_exact_minors(k):
    rng = np.random.default_rng(k)
    q = rng.integers(-2, 3, (300, k, k)) * (rng.random((300, k, k)) < 0.5) - rng.integers(0, 4, (300, 1, 1)) * np.eye(k)
    exact = exact_minors((np.eye(k) - q).astype(int))
    least, zero = np.min(list(exact.values()), 0), np.zeros((k, k))
    decisions = [decide(m) for m in q]
    np.testing.assert_array_equal([d.code == 1 for d in decisions], least > 0)
    assert np.mean([d.code == -1 for d, x in zip(decisions, least, strict=True) if x < 0]) > 0.95
    for n, d in enumerate(decisions):
        assert d.code == 0 or (d.reason == "" and d.method in TESTS)
        assert d.code != -1 or exact[tuple(np.flatnonzero(d.subset))][n] <= 0
        assert least[n] > 0 or all(test(q[n], zero) <= 0 for test in CERTIFICATES.values())
        found = [test(q[n], zero) for test in REFUTATIONS.values()]
        assert all(exact[tuple(np.flatnonzero(s))][n] <= 0 for s in found if s is not None)


@pytest.mark.parametrize("name", CERTIFICATES)
def test_no_false_certificate_at_the_edge(name):
    """For symmetric Q >= 0 all four tests fail at t Q with largest eigenvalue 1, where I - t Q is singular."""
    rng, closest = np.random.default_rng(1), []
    for k in (1, 2, 3, 5):
        for _ in range(6):
            q = rng.random((k, k))
            q = q + q.T
            low, high = 0.0, 10.0
            for _ in range(60):
                t = (low + high) / 2
                low, high = (t, high) if CERTIFICATES[name](t * q, np.zeros((k, k))) > 0 else (low, t)
            assert exact_minor(low * q, range(k)) == 1
            closest.append(1 - low * np.linalg.eigvalsh(q)[-1])
    assert -EPS < min(closest) and max(closest) < 1e-12


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_hold_for_the_worst_error(name):
    """For Q >= 0 it is the one that adds to every entry."""
    rng = np.random.default_rng(11)
    for k in (1, 2, 4):
        q = rng.random((k, k))
        q, error = (q + q.T) / np.linalg.eigvalsh(q + q.T)[-1], 0.01 * rng.random((k, 1)) * np.ones((k, k))
        for t in np.linspace(0.9, 1.0, 50):
            if CERTIFICATES[name](t * q, error) > 0:
                assert np.max(np.linalg.eigvals(t * q + error).real) < 1
        assert CERTIFICATES[name](0.9 * q, error) > 0


def test_the_rounding_of_one_minus_q_is_known():
    for q in (1e-17, 0.3, 0.1 + 2**-55, -1e17 / 3, 1 - 2**-53, 1.0, 0.5, 1e-320):
        matrix, bound = kink_matrix(np.array([[q]]))
        lost = abs(1 - Fraction(q) - Fraction(matrix[0, 0]))
        assert lost <= Fraction(bound[0, 0]) <= lost * (1 + Fraction(1, 10**9))


def test_minors_decide_what_is_too_close_for_cholesky():
    q = np.array([[0.0, 1 - 4e-15], [1 - 4e-15, 0.0]])
    decision = decide(q)
    assert (decision.code, decision.method) == (1, MINORS) and decide(q, max_kinks=1).code == 0


@pytest.mark.parametrize("name", REFUTATIONS)
def test_no_false_refutation_at_the_edge(name):
    rng = np.random.default_rng(2)
    for k in (1, 2, 3, 5):
        for _ in range(6):
            q = rng.random((k, k)) + 2 * np.eye(k) * rng.random((k, 1))
            low, high = 0.0, 10.0
            for _ in range(60):
                t = (low + high) / 2
                bad = REFUTATIONS[name](t * q, np.zeros((k, k)))
                low, high = (low, t) if bad is not None else (t, high)
            bad = REFUTATIONS[name](high * q, np.zeros((k, k)))
            if bad is not None:
                assert exact_minor(high * q, np.flatnonzero(bad)) <= 0


@pytest.mark.parametrize("k", [1, 3, 6])
def test_an_error_bound_covers_every_matrix_within_it(k):
    rng = np.random.default_rng(k)
    error = rng.random((k, k)) * 0.02
    seen = set()
    for q in np.eye(k) - nearly_singular(rng, 40, k) * rng.choice([0.7, 1.0, 3.0], (40, 1, 1)):
        decision = decide(q, error)
        seen.add(decision.code)
        for _ in range(5 * abs(decision.code)):
            assert decide(q + error * rng.choice([-1, 1], (k, k))).code == decision.code
    assert seen == {-1, 0, 1}


@pytest.mark.parametrize("negative", [False, True])
def test_two_hundred_symmetrisable_kinks(negative):
    rng = np.random.default_rng(3)
    matrix, scale = symmetric(rng, 200, 3), 10.0 ** rng.uniform(-2, 2, 200)
    if negative:
        # The determinant changes sign twice, so that it says nothing.
        for i in (50, 150):
            matrix[i, i] -= 1.01 / np.linalg.inv(matrix)[i, i]
    q = np.eye(200) - matrix * scale[:, None] / scale
    start = time.perf_counter()
    decision = decide(q)
    assert time.perf_counter() - start < 1, "two hundred kinks take hundredths of a second"
    assert (decision.code, decision.method) == ((-1 if negative else 1), CHOLESKY)
    if negative:
        s = witness(decision.subset, q, 1e-12)
        assert s is not None and np.linalg.svd(np.eye(200) - s[:, None] * q)[1][-1] < 1e-12 * np.linalg.norm(q, 2)


REASONS = {
    "too many kinks": (
        np.kron(np.eye(10), [[0.0, 5.0], [-5.0, -0.1]]) + np.eye(20, k=2) * 8,
        "20 kinks, more than max_kinks=16",
    ),
    "nan": (np.array([[np.nan, 0], [0, 5.0]]), "nan"),
    "infinity": (np.array([[-np.inf, 0], [0, 5.0]]), "infinity"),
    "a zero minor": (np.array([[0.0, 1.0], [1.0, 0.0]]), "within rounding of zero"),
}


@pytest.mark.parametrize("name", REASONS)
def test_undecided_says_why(name):
    q, reason = REASONS[name]
    decision = decide(q)
    assert decision.code == 0 and reason in decision.reason


@pytest.mark.parametrize("size", [1e160, 1e200, 1e-200, 5e-324])
@pytest.mark.parametrize("sign", [1, -1])
def test_overflow_and_underflow_give_no_wrong_verdict(size, sign):
    """det(I - Q) = 1 - sign·size², and 1 - size for a third kink."""
    q = np.array([[0.0, size, 0.0], [sign * size, 0.0, 0.0], [0.0, 0.0, -size]])
    regular = size < 1 or sign < 0
    assert decide(q).code in ((0, 1) if regular else (0, -1))
    assert decide(np.diag(q[0, ::-1]) + size * np.eye(3)).code == (1 if size < 1 else -1)


def test_a_zero_minor_is_undecided_with_a_witness():
    q = np.array([[0.0, 0.5, 0.0], [0.5, 0.75, 0.0], [0.0, 0.0, 0.3]])
    decision = decide(q)
    assert decision.code == 0 and list(decision.subset) == [True, True, False]
    np.testing.assert_allclose(witness(decision.subset, q, 1e-15), [1, 1, 0])
    assert witness(decision.subset, q - 1e-6 * np.eye(3), 1e-9) is None
    assert witness(np.zeros(3, bool), q, 1.0) is None


def test_no_kink():
    decision = decide(np.zeros((0, 0)))
    assert (decision.code, decision.margin, decision.subset.shape) == (1, 1.0, (0,))


@pytest.mark.parametrize("error", [np.nan, np.inf, -1.0], ids=str)
def test_an_error_bound_that_is_none_is_undecided(error):
    assert decide(np.diag([5.0, 0.0]), error).code == decide(np.zeros((2, 2)), error).code == 0


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: decide(np.zeros((2, 3))), "square matrix"),
        (lambda: decide(np.eye(2), max_kinks=25), "0 <= max_kinks <= 24"),
        (lambda: hull_bound(np.eye(2)), r"\(count, n, n\), got \(2, 2\)"),
        (lambda: monotone_bound(np.zeros((2, 3))), r"\(n, n\), got \(2, 3\)"),
        (lambda: smallest_singular_value(normal_form(np.zeros((2, 3)), k=1)), r"of the base, got \(2, 3\)"),
    ],
    ids=["decide", "max_kinks", "hull", "monotone", "singular value"],
)
def test_wrong_arguments_are_refused(call, match):
    with pytest.raises(nsi.InputError, match=match):
        call()


def test_sign_of_a_determinant():
    rng = np.random.default_rng(4)
    for k in (1, 2, 3, 6):
        for near in (False, True):
            for matrix in (nearly_singular(rng, 40, k) if near else rng.integers(-2, 3, (40, k, k))).astype(float):
                exact, found = exact_sign(matrix), determinant_sign(matrix, np.zeros((k, k)))
                assert found in ((0, exact) if near or not exact else (exact,))
    plain = rng.integers(-2, 3, (6, 6)) - 5.0 * np.eye(6)
    scaled = np.ldexp(plain, rng.integers(-200, 200, (6, 1)) + rng.integers(-200, 200, 6))
    assert determinant_sign(scaled, 0 * scaled) == exact_sign(plain) != 0
    assert determinant_sign(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert determinant_sign(np.eye(2), np.ones((2, 2))) == 0


def normal_form(base, gain=None, into=None, coupling=None, k=0):
    m, n = base.shape
    parts = [np.zeros(s) if x is None else x for x, s in ((gain, (m, k)), (into, (k, n)), (coupling, (k, k)))]
    gain, into, coupling = map(jnp.asarray, parts)
    return NormalForm(jnp.asarray(base), gain, into, coupling, into, coupling)


def kinks(form):
    return np.asarray(form.coupling - form.into @ np.linalg.inv(form.base) @ form.gain)


def test_clarkes_example_is_regular():
    form = normal_form(np.array([[-1.0, 1], [2, -1]]), np.eye(2), 2 * np.eye(2), np.zeros((2, 2)))
    np.testing.assert_allclose(kinks(form), [[-2, -2], [-4, -2]], atol=1e-14)
    assert decide(kinks(form)).code == 1
    value, label = smallest_singular_value(form)
    assert label == "exact" and abs(value - (3 - np.sqrt(5)) / 2) < 1e-14


def test_the_cyclic_trap_is_singular():
    """I - diag(q): the selection 1/2 has determinant 1/4, the selection (1, 0) none."""
    form = normal_form(np.eye(2), -np.eye(2), np.eye(2), np.zeros((2, 2)))
    decision = decide(kinks(form))
    assert decision.code == -1
    s = witness(decision.subset, kinks(form), 0.0)
    assert np.linalg.det(form.jacobian(s)) == 0 and np.linalg.det(form.jacobian([0.5, 0.5])) == 0.25
    assert smallest_singular_value(form) == (0.0, "exact")


def random_form(rng, n, k, size):
    coupling = np.tril(rng.normal(size=(k, k)), -1) * size
    into, gain = (rng.normal(size=shape) * size for shape in ((k, n), (n, k)))
    return normal_form(np.eye(n) + 0.3 * rng.normal(size=(n, n)), gain, into, coupling)


def dense_jacobian(form, s):
    """M(s) in NumPy, by substitution: y_i = s_i (into_i + coupling_i y)."""
    base, gain, into, coupling = (np.asarray(x) for x in (form.base, form.gain, form.into, form.coupling))
    y = np.zeros((len(s), *into.shape))
    for i in range(into.shape[0]):
        y[:, i] = s[:, i, None] * (into[i] + np.einsum("j,bjn->bn", coupling[i], y))
    return base + gain @ y


@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_the_smallest_singular_value_is_at_a_vertex(k):
    rng = np.random.default_rng(k)
    seen = []
    for _ in range(40):
        form = random_form(rng, 3, k, 0.6)
        value, label = smallest_singular_value(form)
        samples = np.concatenate([rng.random((200, k)), rng.integers(0, 2, (100, k)), np.zeros((1, k))])
        sigma = np.linalg.svd(dense_jacobian(form, samples), compute_uv=False)[:, -1]
        assert label == "exact" and value <= np.min(sigma) * (1 + 1e-12)
        code = decide(kinks(form)).code
        assert (value > 0) == (code == 1)
        if value > 0 and k < 4:
            np.testing.assert_allclose(value, np.min(sigma), rtol=1e-12)
        seen.append(code)
    assert set(seen) == ({1} if k == 0 else {-1, 1})


def test_beyond_eight_kinks_it_is_a_bound():
    rng, labels = np.random.default_rng(6), []
    for size in (0.02, 0.1, 0.2, 0.4, 1.0):
        form = random_form(rng, 4, 9, size)
        exact, label = smallest_singular_value(form, max_kinks=9)
        assert label == "exact"
        bound, label = smallest_singular_value(form)
        labels.append(label)
        assert 0 < bound <= exact if label == "lower bound" else np.isnan(bound)
    assert set(labels) == {"lower bound", "no bound"}
    for n, k, size in [(1, 1, 0.8), (2, 2, 0.5), (3, 3, 0.3)] * 15:
        form = random_form(rng, n, k, size)
        bound, label = smallest_singular_value(form, max_kinks=0)
        assert label == "no bound" or bound <= smallest_singular_value(form)[0]
    close, one, zero = np.full((1, 1), -0.9), np.ones((1, 1)), np.zeros((1, 1))
    np.testing.assert_allclose(smallest_singular_value(normal_form(one, one, close, zero), max_kinks=0)[0], 0.1)
    assert smallest_singular_value(normal_form(np.zeros((2, 2)), k=9)) == (0.0, "exact")
    assert smallest_singular_value(normal_form(np.full((2, 2), np.nan), k=1))[1] == "no bound"


def test_hull_bound_is_below_every_mixture():
    rng, positive = np.random.default_rng(7), 0
    for _ in range(100):
        stack = np.eye(4) + rng.normal(size=(3, 4, 4)) * rng.uniform(0.05, 0.4)
        bound = hull_bound(stack)
        mixtures = np.einsum("bi,ijk->bjk", rng.dirichlet(np.full(3, 0.5), 200), stack)
        assert 0 <= bound <= np.min(np.linalg.svd(mixtures, compute_uv=False)[:, -1])
        positive += bound > 0
    assert 20 < positive < 100
    assert hull_bound(np.full((2, 3, 3), np.nan)) == hull_bound(np.zeros((1, 2, 2))) == 0
    np.testing.assert_allclose(hull_bound(stack[:1]), np.linalg.norm(stack[0], -2), rtol=1e-10)


def test_contraction_bound_is_below_and_attained():
    rng = np.random.default_rng(8)
    for a in rng.normal(size=(50, 3, 3)) * rng.uniform(0.1, 0.5, (50, 1, 1)):
        assert 0 <= contraction_bound(a) <= np.linalg.norm(np.eye(3) - a, -2)
    np.testing.assert_allclose(contraction_bound(0.7 * np.eye(3)), 0.3, rtol=1e-12)
    assert contraction_bound(np.eye(2)) == contraction_bound(np.full((2, 2), np.nan)) == 0


@pytest.mark.parametrize("given", [True, False])
def test_monotone_bound_is_below_every_selection(given):
    rng, best = np.random.default_rng(9), 0.0
    for _ in range(40):
        a, b, m = rng.normal(size=(4, 4)), rng.normal(size=(4, 4)), rng.uniform(0.05, 1)
        w = (1 - m) * np.eye(4) - a.T @ a * rng.random() + b - b.T
        bound = monotone_bound(w, m if given else None)
        basis = np.linalg.qr(rng.normal(size=(20, 4, 4)))[0]
        weights = rng.random((20, 4)).round(rng.integers(0, 2))
        dense = np.einsum("bij,bj,bkj->bik", basis, weights, basis)
        diagonal = weights[:, :, None] * np.eye(4)
        least = np.linalg.svd(np.eye(4) - np.concatenate([dense, diagonal]) @ w, compute_uv=False)[:, -1]
        assert 0 < bound <= np.min(least)
        best = max(best, bound / np.min(least))
    assert best > 0.1
    np.testing.assert_allclose(monotone_bound(0.5 * np.eye(2)), 1 / 3, rtol=1e-12)
    assert monotone_bound(2 * np.eye(2)) == monotone_bound(np.full((2, 2), np.nan)) == 0
