"""The public modules of devinterp 1.3.2: change the import, keep the script."""

from fastllc.compat.devinterp1.optim import SGLD

__all__ = ["SGLD"]
