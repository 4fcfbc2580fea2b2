"""What goes wrong with chains: one warning and one error."""

__all__ = ["DivergenceError", "DivergenceWarning", "PrecisionWarning"]


class DivergenceWarning(RuntimeWarning):
    """A step left non-finite weights, or a chain was frozen because of them.

    Examples
    --------
    >>> issubclass(DivergenceWarning, RuntimeWarning)
    True
    """


class PrecisionWarning(RuntimeWarning):
    """Rounding to the weights' precision is not small beside the noise of a step.

    Examples
    --------
    >>> issubclass(PrecisionWarning, RuntimeWarning)
    True
    """


class DivergenceError(RuntimeError):
    """No chain is left: all have diverged.

    Examples
    --------
    >>> issubclass(DivergenceError, RuntimeError)
    True
    """
