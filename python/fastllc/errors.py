"""What goes wrong with chains: one warning and one error."""

__all__ = ["DivergenceError", "DivergenceWarning"]


class DivergenceWarning(RuntimeWarning):
    """A step left non-finite weights, or a chain was frozen because of them.

    Examples
    --------
    >>> issubclass(DivergenceWarning, RuntimeWarning)
    True
    """


class DivergenceError(RuntimeError):
    """No chain is left: all have diverged.

    Examples
    --------
    >>> issubclass(DivergenceError, RuntimeError)
    True
    """
