"""What all tests share: brokers, databases, Node, Chromium, and a word at the end about which ones they were."""

from hypothesis import settings

# chromium imports from node, which must be known as a plugin by then.
pytest_plugins = [f"tests.fixtures.{name}" for name in ("broker", "database", "node", "chromium")]

# No deadline: a busy machine is no failure. Fewer examples than usual, with others on every run.
settings.register_profile("gateway", deadline=None, max_examples=80)
settings.load_profile("gateway")
