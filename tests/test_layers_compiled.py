"""Layers that are loops: their gradients lower for every platform and hold nothing for every step."""

import jax
import jax.numpy as jnp
import pytest

import nsimplicit as nsi

WEIGHT = jax.ShapeDtypeStruct((12, 12), jnp.float32)
INPUTS = jax.ShapeDtypeStruct((5, 12), jnp.float32)
STEPS = 12_347


def deq(weight, inputs, max_steps):
    def cell(z, x):
        return jnp.tanh(z @ weight + x)

    return nsi.layers.deq(cell, inputs, z0=0 * inputs, max_steps=max_steps).value


def prox_of_a_sum(weight, inputs, max_steps):
    both = nsi.layers.Sum(nsi.prox.L1(weight[0]), nsi.prox.L2(jnp.sum(weight)), max_steps=max_steps)
    return jax.vmap(both.prox, (0, None))(inputs, 0.5)


@pytest.mark.parametrize("layer", [deq, prox_of_a_sum])
def test_gradients_lower_everywhere_and_no_array_has_an_entry_for_every_step(layer):
    slope = jax.jit(jax.grad(lambda w, x: jnp.sum(layer(w, x, STEPS) ** 2)))
    exported = jax.export.export(slope, platforms=("cpu", "cuda", "tpu"))(WEIGHT, INPUTS)
    assert exported.out_avals[0].dtype == jnp.float32
    text = exported.mlir_module()
    assert str(STEPS) in text
    assert f"{STEPS}x" not in text
