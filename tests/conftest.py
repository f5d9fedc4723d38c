"""What all tests share: brokers, databases, and a word at the end about which ones they were."""

pytest_plugins = ["tests.fixtures.broker", "tests.fixtures.database"]
