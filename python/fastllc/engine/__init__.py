"""Draw many states: data, loss, weights and the loop of all chains, with no estimate in mind."""
