"""Claims one task at a time, runs its model, and sends the output back."""
