"""Draw many states: data, loss, model state and the loop of all chains, with no estimate in mind."""
