"""From calls to answers: queues, windows, batches, deadlines, and their figures. It knows no dialect and no socket."""
