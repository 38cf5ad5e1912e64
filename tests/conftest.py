pytest_plugins = ["tests.fixtures", "tests.order"]
