"""The same work on one device and on eight, which may belong to two processes: prints how far the answers are apart.

``python -m tests.two_processes PROCESS PROCESSES PORT`` is process number PROCESS of PROCESSES, with its share of the
devices (``XLA_FLAGS``). Each part is a function of global arrays, run by ``jit`` on sharded arguments and by
``shard_map``.
"""

import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import nsimplicit as nsi

DEVICES = 8
LANES, WIDTH, INPUTS = 16, 8, 5
SAMPLES, FEATURES = 24, 32
SAME, SPLIT = P(), P("d")
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


def mean_over_devices(x):
    return jax.lax.pmean(x, "d")


def train(axis, params, inputs, targets, rates):
    """Three steps of a data-parallel deep equilibrium model: new parameters, losses, and what each lane did."""

    def loss_fn(params, tap):
        def cell(z):
            return jnp.tanh(rates[:, None] * (z @ params["mix"]) + inputs @ params["encode"])

        start = 0 * (inputs @ params["encode"])
        tol = 20 * jnp.finfo(inputs.dtype).eps
        found = nsi.fixed_point(cell, start, tol=tol, max_steps=2000, batch_axis=0, tap=tap)
        loss = jnp.mean((found.value @ params["decode"] - targets) ** 2)
        return mean_over_devices(loss) if axis else loss, found.num_steps

    def step(carry, _):
        params, state = carry
        tap = jax.tree.map(lambda x: x + 0 * inputs[:, 0].astype(x.dtype), nsi.tap(lanes=len(inputs)))
        (loss, steps), (gradient, report) = jax.value_and_grad(loss_fn, (0, 1), has_aux=True)(params, tap)
        updates, state = OPTIMIZER.update(gradient, state)
        return (optax.apply_updates(params, updates), state), (loss, steps, report.num_solves, report.num_failures)

    (params, _), (losses, *counts) = jax.lax.scan(step, (params, OPTIMIZER.init(params)), None, 3)
    steps, solves, failures = (x.astype(int) for x in counts)
    return {"params": params, "losses": losses}, {"steps": steps, "solves": solves, "failures": failures}


def training_data(dtype):
    """Lanes from easy to hard: the devices that hold the last ones need many times the steps of the first."""
    rng = np.random.default_rng(0)
    mix = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    params = {"mix": mix, "encode": rng.normal(size=(INPUTS, WIDTH)) / 4, "decode": rng.normal(size=(WIDTH, 2))}
    data = (rng.normal(size=(LANES, INPUTS)), rng.normal(size=(LANES, 2)), np.linspace(0.05, 0.95, LANES))
    return jax.tree.map(lambda x: x.astype(dtype), (params, *data))


def hypergradient(axis, log_weight, A, b, A_test, b_test):
    """The derivative of a Lasso's test error in its log weight; ``A`` and ``A_test`` split by columns."""
    total = (lambda v: jax.lax.psum(v, axis)) if axis else (lambda v: v)

    def test_error(log_weight):
        def fit(x, A):
            return 0.5 * jnp.sum((total(A @ x) - b) ** 2)

        T = nsi.splittings.ForwardBackward(nsi.smooth(fit, A), nsi.prox.L1(jnp.exp(log_weight)), 0.2)
        tol = 8 * float(jnp.finfo(A.dtype).eps)
        derivative = nsi.derivatives.Implicit(nsi.linear_solvers.ProxCG(rtol=tol))
        found = nsi.fixed_point(T, 0 * A[0], derivative=derivative, tol=tol, max_steps=5000, axis_name=axis or ())
        return jnp.sum((total(A_test @ found.value) - b_test) ** 2), (found.value, found.converged)

    (error, (x, converged)), slope = jax.value_and_grad(test_error, has_aux=True)(log_weight)
    return {"error": error, "slope": slope}, {"x": x, "converged": converged}


def lasso_data(dtype):
    rng = np.random.default_rng(1)
    A, A_test = rng.normal(size=(2, SAMPLES, FEATURES)) / np.sqrt(SAMPLES)
    truth = np.where(np.arange(FEATURES) % 4 == 0, 2.0, 0.0)
    b, b_test = (M @ truth + 0.1 * rng.normal(size=SAMPLES) for M in (A, A_test))
    return tuple(np.asarray(x, dtype) for x in (np.log(0.3), A, b, A_test, b_test))


# name: function of (mesh axis, *arguments), data for a dtype, how the arguments are split, and how the second output is
PARTS = {
    "train": (train, training_data, (SAME, SPLIT, SPLIT, SPLIT), P(None, "d")),
    "lasso": (
        hypergradient,
        lasso_data,
        (SAME, P(None, "d"), SAME, P(None, "d"), SAME),
        {"x": SPLIT, "converged": SAME},
    ),
}


def distribute(mesh, tree, spec):
    """Global arrays, of which each process holds the part of its own devices."""

    def place(x):
        return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])

    return jax.tree.map(place, tree)


def apart(sharded, plain):
    """The largest relative difference in the shards this process holds; whole numbers may differ by a step."""
    found = [0.0]
    for array, want in zip(jax.tree.leaves(sharded), map(np.asarray, jax.tree.leaves(plain)), strict=True):
        for shard in array.addressable_shards:
            got, expected = np.asarray(shard.data, float), np.asarray(want[shard.index], float)
            if np.issubdtype(want.dtype, np.floating):
                found.append(float(np.linalg.norm(got - expected) / np.linalg.norm(want)))
            else:
                found.append(0.0 if np.max(np.abs(got - expected)) <= 1 else np.inf)
    return float(np.max(found))


def compare(part, dtype, mesh):
    """Mode -> how far it is from one device; and what one device found, lane by lane."""
    fun, data, specs, second = PARTS[part]
    arguments = data(dtype)
    placed = [distribute(mesh, x, spec) for x, spec in zip(arguments, specs, strict=True)]
    whole = functools.partial(fun, None)
    mapped = jax.shard_map(functools.partial(fun, "d"), mesh=mesh, in_specs=specs, out_specs=(SAME, second))
    modes = {"jit": jax.jit(whole, out_shardings=NamedSharding(mesh, SAME)), "shard_map": jax.jit(mapped)}
    plain = jax.jit(whole)(*arguments)
    lanes = {name: np.asarray(x, float).tolist() for name, x in plain[1].items()}
    return {mode: apart(run(*placed), plain) for mode, run in modes.items()}, {"lanes": lanes}


def main():
    process, processes, port = map(int, sys.argv[1:])
    jax.config.update("jax_enable_x64", True)
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process)
    assert (jax.process_count(), jax.device_count()) == (processes, DEVICES)
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    for part in PARTS if processes == 1 else ("train",):
        for dtype in ("float32", "float64"):
            print(json.dumps([part, dtype, *compare(part, dtype, mesh)]), flush=True)


if __name__ == "__main__":
    main()
