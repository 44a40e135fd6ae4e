"""The HTTP edge: routes translate and delegate."""
