"""Where task ids come from: RabbitMQ, or a long poll on private_api. Both pass tests/contract/test_inbox.py."""
