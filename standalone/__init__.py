"""The whole platform on one machine with no other server: ``infer up``."""
