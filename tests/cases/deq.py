"""What the tests of deep equilibrium layers cover."""

COVERED = frozenset({"layers.deq", "layers.jacobian_penalty", "layers.spectral_radius"})
