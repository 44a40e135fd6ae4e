"""One model process: dials the gateway, holds generations of endpoints in memory, answers calls."""
