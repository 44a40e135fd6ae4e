"""The only batch door for users: a relay to private_api that streams both ways and keeps nothing."""
