"""Settings found by a pilot run: the grid, its judge, and what came of it."""

from fastllc.calibration.calibrate import calibrate
from fastllc.calibration.judge import Pilot
from fastllc.calibration.result import Calibration, CalibrationError

__all__ = ["Calibration", "CalibrationError", "Pilot", "calibrate"]
