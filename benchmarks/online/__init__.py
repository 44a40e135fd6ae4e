"""The online path against bare floors and against other inference servers: ``make bench-online``."""
