"""What all tests share: brokers, databases, and a word at the end about which ones they were."""

from hypothesis import settings

pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.database", "tests.fixtures.node"]

# No deadline: a busy machine is no failure. Fewer examples than usual, with others on every run.
settings.register_profile("gateway", deadline=None, max_examples=80)
settings.load_profile("gateway")
