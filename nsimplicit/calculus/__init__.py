"""Programs as data: re-evaluating a JAX function with chosen treatment of what is in it."""
