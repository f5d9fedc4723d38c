"""The shipped Compose project, built and run for real by a Docker engine: `make test-compose`."""
