"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# The same examples each time, and no time limit on any: a busy machine is no failure.
settings.register_profile("chipmesh", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("chipmesh")
