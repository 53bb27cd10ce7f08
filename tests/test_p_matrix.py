"""P-matrix verdicts against exact arithmetic, against searches for a counterexample, and under transformations."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nsimplicit as nsi
from nsimplicit.certificates import p_test, symmetrised, witness
from nsimplicit.certificates.p_matrix import minors

EPS = np.finfo(np.float64).eps


CHUNK = 250
compiled = jax.jit(jax.vmap(p_test, (0, None)))


def verdicts(matrices, error=0.0):
    """p_test of a batch in chunks of one size: one compilation for each k, shared by all tests."""
    count, k = matrices.shape[:2]
    assert count <= CHUNK or count % CHUNK == 0
    rows = max(count, CHUNK)
    padded = np.concatenate([matrices, np.zeros((rows - count, k, k), matrices.dtype)])
    error = np.broadcast_to(np.asarray(error, matrices.dtype), (k, k))
    parts = [compiled(jnp.asarray(padded[n : n + CHUNK]), error) for n in range(0, rows, CHUNK)]
    return jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)


def exact_minors(matrices):
    """All principal minors of integer matrices (count, k, k), by Laplace expansion in integers: {subset: (count,)}."""
    k = matrices.shape[-1]
    found = {}
    for size in range(1, k + 1):
        for subset in itertools.combinations(range(k), size):
            # partial[columns]: minors of the first rows of the subset with these columns
            partial = {(): np.ones(len(matrices), np.int64)}
            for depth, row in enumerate(subset):
                partial = {
                    columns: sum(
                        (-1) ** (depth + n) * matrices[:, row, c] * partial[columns[:n] + columns[n + 1 :]]
                        for n, c in enumerate(columns)
                    )
                    for columns in itertools.combinations(subset, depth + 1)
                }
            found[subset] = partial[subset]
    return found


@pytest.mark.parametrize("k", range(1, 7))
def test_integer_matrices_against_exact_minors(k):
    rng = np.random.default_rng(k)
    shift = rng.integers(0, 6, (500, 1, 1)) * np.eye(k, dtype=int)
    matrices = rng.integers(-3, 4, (500, k, k)) * (rng.random((500, k, k)) < 0.7) + shift
    exact = exact_minors(matrices)
    least = np.min(list(exact.values()), 0)
    result = verdicts(matrices.astype(float))
    code = result.code
    # Minors are integers, so rounding leaves none of the positive ones in doubt.
    np.testing.assert_array_equal(code == 1, least > 0)
    assert np.mean(code[least < 0] == -1) > 0.9
    assert 20 < np.sum(least > 0) and 4 < np.sum(least == 0)
    for n in np.flatnonzero(code == -1):
        subset = tuple(np.flatnonzero(result.subset[n]))
        assert exact[subset][n] <= 0
        assert len(subset) == 1 or exact[subset[:-1]][n] > 0
    assert np.all(result.margin[code == 1] > 0) and np.all(result.margin[least < 0] < 1e-12)


def test_diagonals_are_decided_exactly():
    result = verdicts(jnp.stack([jnp.diag(jnp.array(d, float)) for d in ([1, 2, 3], [1, 0, 2], [1, -1, 0], [5, 1, 0])]))
    np.testing.assert_array_equal(result.code, [1, -1, -1, -1])
    np.testing.assert_array_equal(result.margin, [1, 0, -1, 0])
    np.testing.assert_array_equal(result.subset[1:], np.eye(3, dtype=bool)[[1, 1, 2]])


def nearly_singular(rng, count, k):
    """Matrices I - Q: as they come; with one minor tuned to a few eps; scaled to where the verdict changes."""
    plain, tuned, edge = (np.arange(count) % 4 == n for n in (0, 1, 2))
    size = np.where(plain, rng.uniform(0.1, 1.5, count), rng.uniform(0.1, 0.6, count))
    q = size[:, None, None] * rng.normal(size=(count, k, k)) / np.sqrt(k)
    matrices = np.eye(k) - q
    for n in np.flatnonzero(tuned):
        subset = np.sort(rng.permutation(k)[: rng.integers(1, k + 1)])
        block, last = matrices[n][np.ix_(subset, subset)], subset[-1]
        ratio = np.linalg.det(block) / np.linalg.det(block[:-1, :-1]) if len(subset) > 1 else block[0, 0]
        matrices[n, last, last] += rng.integers(-10, 11) * EPS - ratio
    low, high = np.zeros(edge.sum()), np.full(edge.sum(), 64.0)
    for _ in range(56):
        middle = (low + high) / 2
        fine = verdicts(np.eye(k) - middle[:, None, None] * q[edge]).code == 1
        low, high = np.where(fine, middle, low), np.where(fine, high, middle)
    matrices[edge] = np.eye(k) - (low * (1 + rng.integers(-10, 31, len(low)) * EPS))[:, None, None] * q[edge]
    return matrices


def exact_sign(matrix, identity=0):
    """The sign of det(identity·I + matrix) for a matrix of floats, by Bareiss' elimination in integers."""
    whole = np.ldexp(matrix, 200)
    assert np.all(np.trunc(whole) == whole)
    a = [[int(x) + (i == j) * identity * 2**200 for j, x in enumerate(row)] for i, row in enumerate(whole)]
    sign, previous = 1, 1
    for i in range(len(a)):
        p = next((r for r in range(i, len(a)) if a[r][i]), None)
        if p is None:
            return 0
        if p != i:
            a[i], a[p], sign = a[p], a[i], -sign
        for r in range(i + 1, len(a)):
            a[r] = [(x * a[i][i] - a[r][i] * y) // previous for x, y in zip(a[r], a[i], strict=True)]
        previous = a[i][i]
    return sign * int(np.sign(previous))


def smallest_found(rng, q, steps=25):
    """The smallest σ_min(I - S Q) met at random selections and vertices and on the way down from them."""
    k = len(q)

    def values(s):
        return np.linalg.svd(np.eye(k) - s[:, :, None] * q, compute_uv=False)[:, -1]

    s = np.concatenate([rng.integers(0, 2, (24, k)), rng.random((8, k))]).astype(float)
    best, rows = values(s), np.arange(len(s))
    for step in 0.6 ** np.arange(steps):
        trial, i = s.copy(), rng.integers(0, k, len(s))
        trial[rows, i] = np.clip(trial[rows, i] + step * rng.normal(size=len(s)), 0, 1)
        new = values(trial)
        s, best = np.where((new < best)[:, None], trial, s), np.minimum(new, best)
    return np.min(best)


@pytest.mark.slow
@pytest.mark.parametrize("k", range(1, 11))
def test_no_search_contradicts_a_verdict(k):
    rng = np.random.default_rng(100 + k)
    matrices = nearly_singular(rng, 1000, k)
    result = verdicts(matrices)
    code, margin, subsets = result.code, result.margin, result.subset
    # At k = 1 nothing is computed, so nothing is in doubt.
    assert all(np.sum(code == c) > 4 for c in ((-1, 1) if k == 1 else (-1, 0, 1)))
    regular = np.flatnonzero(code == 1)
    worst = regular[np.argsort(margin[regular])]
    for n in worst[:20]:
        assert exact_sign(matrices[n][np.ix_(subsets[n], subsets[n])]) == 1
        assert smallest_found(rng, np.eye(k) - matrices[n]) > 0
    s = (rng.permutation(2**k)[:128, None] >> np.arange(k) & 1).astype(bool)
    picked = np.where(s[:, :, None], matrices[worst, None], np.eye(k))
    # LAPACK's own rounding is not bounded: close to zero its sign proves nothing.
    assert np.all(np.linalg.det(picked) > -1e3 * EPS)
    for n in np.flatnonzero(code == -1):
        q = np.eye(k) - matrices[n]
        s = witness(result.subset[n], q, 1e3 * EPS)
        assert s is not None and np.all((s >= 0) & (s <= 1))
        sigma = np.linalg.svd(np.eye(k) - s[:, None] * q, compute_uv=False)
        assert sigma[-1] <= 1e3 * EPS * (1 + np.linalg.norm(q, 2))
    for n in np.flatnonzero(code == -1)[np.argsort(-margin[code == -1])][:40]:
        assert exact_sign(matrices[n][np.ix_(subsets[n], subsets[n])]) <= 0


def test_bounds_on_rounding_hold():
    """Codes 1 and -1 in float32 are those of float64, where float32's doubts are not doubts."""
    rng = np.random.default_rng(5)
    matrices = nearly_singular(rng, 1000, 6).astype(np.float32)
    single, double = verdicts(matrices), verdicts(matrices.astype(float))
    assert single.code.dtype == np.int32 and single.margin.dtype == np.float32
    decided = single.code != 0
    assert 0.3 < np.mean(decided) < 1
    np.testing.assert_array_equal(single.code[decided], double.code[decided])


def test_an_error_bound_covers_every_matrix_within_it():
    rng = np.random.default_rng(6)
    matrices, error = nearly_singular(rng, 250, 4), rng.random((4, 4)) * 0.02
    wide = verdicts(matrices, error)
    assert min(np.sum(wide.code == c) for c in (-1, 0, 1)) > 20
    for _ in range(20):
        moved = verdicts(matrices + error * rng.choice([-1, 1], matrices.shape))
        decided = wide.code != 0
        np.testing.assert_array_equal(moved.code[decided], wide.code[decided])


FAMILIES = {
    "diagonally dominant": lambda rng, k: np.diag(k * (1.5 + rng.random(k))) + rng.uniform(-1, 1, (k, k)),
    "contraction": lambda rng, k: (lambda w: np.eye(k) - 0.98 * w / np.linalg.norm(w, 2))(rng.normal(size=(k, k))),
    "monotone": lambda rng, k: (lambda w: 0.1 * np.eye(k) + w @ w.T / k)(rng.normal(size=(k, k))),
    "scaled": lambda rng, k: FAMILIES["contraction"](rng, k) * 10.0 ** rng.uniform(-9, 9, (k, 1)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_p_matrices(family):
    rng = np.random.default_rng(7)
    result = verdicts(np.stack([FAMILIES[family](rng, 8) for _ in range(50)]))
    assert np.all(result.code == 1) and np.all((result.margin > 0) & (result.margin <= 1))


def test_identity_padding_and_diagonal_scaling_change_nothing():
    rng = np.random.default_rng(8)
    small = nearly_singular(rng, 200, 4)
    places = np.stack([np.sort(rng.permutation(7)[:4]) for _ in small])
    padded = np.tile(np.eye(7), (200, 1, 1))
    for out, place, matrix in zip(padded, places, small, strict=True):
        out[np.ix_(place, place)] = matrix
    few, many = verdicts(small), verdicts(padded)
    np.testing.assert_array_equal(few.code, many.code)
    # XLA may fuse a multiplication with an addition, in one shape and not in another.
    np.testing.assert_allclose(few.margin, many.margin, atol=1e-14)
    bad = few.code == -1
    np.testing.assert_array_equal(few.subset[bad], np.take_along_axis(many.subset, places, 1)[bad])
    # Powers of two: nothing rounds differently.
    left, right = (2.0 ** rng.integers(-20, 20, size) for size in ((200, 4, 1), (200, 1, 4)))
    scaled = verdicts(left * small * right)
    np.testing.assert_array_equal(few.code, scaled.code)
    np.testing.assert_allclose(few.margin, scaled.margin, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["matrix", "error"])
def test_what_is_not_finite_is_undecided(bad, where):
    fun = jax.jit(p_test)
    for i, j in itertools.product(range(3), range(3)):
        matrix, error = np.eye(3) - 5 * np.eye(3)[1][:, None] * np.eye(3)[1], np.zeros((3, 3))
        (matrix if where == "matrix" else error)[i, j] = bad
        result = fun(matrix, error)
        assert result.code == 0 and np.isnan(result.margin) and not np.any(result.subset)


def test_margin_is_the_pivot_over_what_it_is_made_of():
    """1 - 0.5·0.5 in the first matrix, 2.25 - 3·0.5/1 - 1·1/2 in the second."""
    first = [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]
    second = [[1, 0, 0.5], [0, 2, 1], [3, 1, 2.25]]
    result = verdicts(np.array([first, second]))
    np.testing.assert_allclose(result.margin, [0.75 / 1.25, 0.25 / 4.25], rtol=1e-14)
    np.testing.assert_array_equal(result.subset, [[True, True, False], [True, True, True]])


def test_what_is_exactly_zero_couples_nothing():
    assert p_test(1e-30 * np.eye(3, dtype=np.float32)).code == 1
    assert p_test(np.array([[1.0, 10.0], [0.0, 1.0]]), 0.05).code == 1
    assert p_test(np.array([[1.0, 10.0], [0.0, 1.0]]), 0.2).code == 0
    assert p_test(np.array([[1.0, 0.0], [10.0, 1.0]]), 0.2).code == 0


def test_overflow_and_underflow_are_undecided_or_right():
    tiny, huge = 1e-200, 1e200
    cases = [
        ([[tiny, huge], [-huge, tiny]], (0, 1)),
        ([[tiny, huge], [huge, tiny]], (0, -1)),
        ([[tiny, tiny], [tiny, tiny]], (0,)),
        ([[1.0, tiny], [tiny, tiny]], (0, 1)),
    ]
    codes = verdicts(np.array([matrix for matrix, _ in cases])).code
    assert all(int(code) in allowed for code, (_, allowed) in zip(codes, cases, strict=True))


def test_no_kink_is_a_p_matrix():
    result = p_test(jnp.zeros((0, 0)))
    assert result.code == 1 and result.margin == 1 and result.subset.shape == (0,)


def test_vmap_is_a_loop_and_numpy_is_jax():
    matrices = nearly_singular(np.random.default_rng(9), 60, 5)
    together, alone = verdicts(matrices), jax.jit(p_test)
    for n, matrix in enumerate(matrices):
        one, host = alone(matrix), minors(np, matrix, np.zeros((5, 5)))
        for field, value in zip(("code", "margin", "subset"), host, strict=True):
            np.testing.assert_array_equal(getattr(one, field), getattr(together, field)[n])
            # XLA may fuse a multiplication with an addition.
            np.testing.assert_allclose(np.asarray(value, float), np.asarray(getattr(one, field), float), atol=1e-12)


def test_integers_and_bfloat16_are_widened():
    assert p_test(np.array([[2, 1], [1, 2]])).margin.dtype == jnp.float64
    assert p_test(jnp.eye(2, dtype=jnp.bfloat16)).margin.dtype == jnp.float32


@pytest.mark.parametrize("shape", [(2, 3), (2,), (25, 25)], ids=str)
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(nsi.InputError, match=r"square matrix with at most 24 rows, got shape"):
        p_test(jnp.zeros(shape))


@pytest.mark.slow
def test_sixteen_and_twenty_kinks():
    rng = np.random.default_rng(10)
    matrix = FAMILIES["contraction"](rng, 16)
    run = jax.jit(p_test).lower(matrix).compile()
    start = time.perf_counter()
    assert jax.block_until_ready(run(matrix)).code == 1
    # A hundred times what one core takes: only an algorithm of another order fails.
    assert time.perf_counter() - start < 2
    matrix[15, 15] = matrix[15, :15] @ np.linalg.solve(matrix[:15, :15], matrix[:15, 15]) - 1e-9
    result = run(matrix)
    assert result.code == -1 and result.subset[15]
    matrix = FAMILIES["contraction"](rng, 20)
    assert minors(np, matrix, np.zeros((20, 20)))[0] == 1


def symmetric(rng, k, parts):
    """A symmetric matrix with unit diagonal, of independent parts in a random order."""
    which = rng.permutation(np.arange(k) % parts)
    root = rng.normal(size=(k, 2 * k)) / np.sqrt(2 * k)
    matrix = np.where(which[:, None] == which, root @ root.T, 0)
    return matrix / np.sqrt(np.outer(np.diagonal(matrix), np.diagonal(matrix)))


@pytest.mark.parametrize("parts", [1, 3, 12])
def test_symmetrised_has_the_minors_of_the_matrix(parts):
    rng = np.random.default_rng(parts)
    matrix, scale = symmetric(rng, 12, parts), 10.0 ** rng.uniform(-3, 3, 12)
    found = symmetrised(np.eye(12) - matrix * scale[:, None] / scale)
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(np.abs(found), np.abs(matrix), atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), np.linalg.eigvalsh(matrix), atol=1e-12)


NOT_SYMMETRISABLE = {
    "one zero": [[0, 1], [0, 0]],
    "two signs": [[0, 1], [-1, 0]],
    "a cycle": [[0, 1, 4], [1, 0, 1], [1, 1, 0]],
    "a cycle with signs": [[0, 1, 1], [1, 0, 1], [-1, 1, 0]],
    "nan": [[0, np.nan], [1, 0]],
    "infinity": [[0, np.inf], [1, 0]],
}


@pytest.mark.parametrize("name", NOT_SYMMETRISABLE)
def test_what_cannot_be_symmetrised_is_said_so(name):
    assert symmetrised(np.array(NOT_SYMMETRISABLE[name], float)) is None


def test_noise_between_parts_does_not_decide_the_scaling():
    rng = np.random.default_rng(3)
    q = np.eye(4) - symmetric(rng, 4, 1)
    q[:2, 2:], q[2:, :2] = 1e-18 * rng.random((2, 2, 2))
    found = symmetrised(q, 1e-16)
    np.testing.assert_allclose(found, np.eye(4) - q, atol=1e-15)


def test_symmetry_is_asked_for_up_to_the_error():
    q = np.eye(4) - symmetric(np.random.default_rng(4), 4, 1)
    q[0, 1] += 1e-6
    assert symmetrised(q) is None and symmetrised(q, 1e-6) is not None


def test_symmetrised_without_kinks():
    assert symmetrised(np.zeros((0, 0))).shape == (0, 0)
