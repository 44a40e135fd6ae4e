"""Workers that have dialled in: the port, their connections, and the pools that they serve."""
