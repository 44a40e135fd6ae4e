"""How a model is run: docker containers or local processes. Both pass tests/contract/test_runner.py."""
