"""Choose a selection: at a kink many derivatives are legal. Which one do you get, and which can you ask for?

JAX picks one for you, and its picks are the defaults here. `selection=` asks for another; what is outside the legal
set is refused. Last, why it matters: programs of one and the same function disagree at a kink, and algorithms notice.
"""

from functools import partial

import jax
import jax.numpy as jnp

import nsimplicit as nsi

zeros, ones, unit = jnp.zeros(2), jnp.ones(2), jnp.array([0.6, 0.8])

KINKS = [  # where, the legal set, JAX's function, the same here, its use, the point, selections to ask for
    ("relu(x) at 0", "[0, 1]", jax.nn.relu, nsi.relu, lambda f, x: f(x), 0.0, ["above", 0.25]),
    ("|x| at 0", "[-1, 1]", jnp.abs, nsi.abs, lambda f, x: f(x), 0.0, ["mean", "below"]),
    ("|x1| + |x2| at 0", "a square", jnp.abs, nsi.abs, lambda f, x: f(x).sum(), zeros, ["mean", "below"]),
    ("max(x, 0) at 0", "[0, 1]", jnp.maximum, nsi.maximum, lambda f, x: f(x, 0), 0.0, ["above", "below"]),
    ("clip(x, 0, 1) at 1", "[0, 1]", jnp.clip, nsi.clip, lambda f, x: f(x, 0, 1), 1.0, ["inside", "outside"]),
    ("max(x1, x2), a tie", "a segment", jnp.max, nsi.max, lambda f, x: f(x), ones, ["first", "last"]),
    ("sort(x)[0], a tie", "a segment", jnp.sort, nsi.sort, lambda f, x: f(x)[0], ones, ["last", "mean"]),
    ("norm(x) at 0", "a disc", jnp.linalg.norm, nsi.norm, lambda f, x: f(x), zeros, ["zero", unit]),
]


def derivative(program, function, x):
    """Of ``program(function, x)`` in x."""
    return jax.grad(partial(program, function))(x)


def show(value):
    return value if isinstance(value, str) else " ".join(f"{float(v):g}" for v in jnp.ravel(value))


print(f"{'kink':20}{'legal set':11}{'JAX':9}{'default':9}asked for")
for kink, legal, theirs, ours, program, x, selections in KINKS:
    jaxs, default = derivative(program, theirs, x), derivative(program, ours, x)
    asked = [f"{show(s)} → {show(derivative(program, partial(ours, selection=s), x))}" for s in selections]
    print(f"{kink:20}{legal:11}{show(jaxs):9}{show(default):9}{asked[0]:15}{asked[1]}")
    assert jnp.all(default == jnp.where(jnp.isnan(jaxs), 0, jaxs))  # the same, and 0 where JAX has nan

print("\nrelu(0.0, selection=1.5):")
try:
    nsi.relu(0.0, selection=1.5)
except nsi.InputError as error:
    print(error)

PROGRAMS = [  # of relu, 0 and x; and what calculus makes of relu'(0) = s
    ("relu(x)", lambda relu, x: relu(x), lambda s: s),
    ("relu(-x) + x", lambda relu, x: relu(-x) + x, lambda s: 1 - s),
    ("(relu(x) + relu(-x) + x)/2", lambda relu, x: (relu(x) + relu(-x) + x) / 2, lambda s: 1 / 2),
    ("relu(-x) + x - relu(x), or 0", lambda relu, x: relu(-x) + x - relu(x), lambda s: 1 - 2 * s),
    ("relu(x) - relu(-x), or x", lambda relu, x: relu(x) - relu(-x), lambda s: 2 * s),
]
WEIGHTS = (0.0, 0.25, 0.5, 1.0)
print(f"\n{'derivative at 0 when relu′(0) is':34}" + "".join(f"{s:>7g}" for s in WEIGHTS))
for name, program, calculus in PROGRAMS:
    slopes = [derivative(program, partial(nsi.relu, selection=s), 0.0) for s in WEIGHTS]
    print(f"{name:34}" + "".join(f"{slope:>7g}" for slope in slopes))
    assert slopes == [calculus(s) for s in WEIGHTS]
    assert slopes[0] == derivative(program, jax.nn.relu, 0.0)
print("The first three are one function, the last two are 0 and x: only 1/2 gets those two right, and JAX has 0.")

print("\nA step on |x1| + |x2| from its minimiser 0:")
for selection, stays in [("jax", False), ("mean", True)]:
    x = zeros - 0.1 * derivative(lambda f, x: f(x).sum(), partial(nsi.abs, selection=selection), zeros)
    print(f"  selection={selection!r:7} moves to ({show(x)})")
    assert jnp.all(x == 0) == stays
