"""Draw many states: data, loss, model state and one chain at a time, with no estimate in mind."""
