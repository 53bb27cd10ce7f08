"""What every test relies on: eight CPU devices, float64, keyed randomness, doctests as a user sees them."""

import os
import zlib

# Before JAX starts: XLA reads these once. An accelerator has to be asked for (JAX_PLATFORMS=cuda make test).
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Two test processes share the cores: OpenBLAS threads that spin for each other made LU 100 times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)

# The same examples in every run and on every machine; compilation makes the first example slow.
hypothesis.settings.register_profile("nsimplicit", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("nsimplicit")


@pytest.fixture
def key(request):
    """A random key of this test's own: it depends on the test's name and on nothing else."""
    return jax.random.key(zlib.crc32(request.node.nodeid.encode()))


class DoctestsAsUsersSeeThem:
    """Runs doctests with JAX's defaults (float32), not with the float64 of the tests."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        if not isinstance(item, pytest.DoctestItem):
            return (yield)
        jax.config.update("jax_enable_x64", False)
        try:
            return (yield)
        finally:
            jax.config.update("jax_enable_x64", True)


def pytest_configure(config):
    # A hook written in this file would not see the doctests, which live in other folders.
    config.pluginmanager.register(DoctestsAsUsersSeeThem())
