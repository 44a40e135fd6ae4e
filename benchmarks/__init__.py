"""Measures the platform against floors in the same run; ``python -m benchmarks`` publishes the numbers."""
