"""What crosses a process boundary and is needed on both sides: pydantic and the standard library only."""
