"""Learning coefficients over a grid of step sizes and temperatures."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from fastllc.compat.devinterp1.utils import default_nbeta

__all__ = ["EpsilonBetaAnalyzer", "SweepConfig"]


@dataclass
class SweepConfig:
    """What a sweep runs.

    Attributes
    ----------
    epsilon_range, beta_range : the grid of step sizes and inverse temperatures, all > 0
    llc_estimator : called as ``llc_estimator(epsilon=, beta=, **llc_estimator_kwargs)``; returns a
        dict with ``llc/trace``, [chain, draw] or [draw]
    """

    epsilon_range: Sequence[float]
    beta_range: Sequence[float]
    llc_estimator: Callable[..., dict[str, Any]]
    llc_estimator_kwargs: dict[str, Any]

    def __post_init__(self) -> None:
        if not min(self.beta_range) > 0:
            raise AssertionError("All beta values must be greater than 0")
        if not min(self.epsilon_range) > 0:
            raise AssertionError("All epsilon values must be greater than 0")
        if max(self.epsilon_range) > 1e-2:
            warnings.warn(
                "Epsilon values greater than 1e-2 are rarely stable: 1e-6 to 1e-2 are usual",
                stacklevel=4,
            )


class EpsilonBetaAnalyzer:
    """Runs an estimator over a grid of step sizes epsilon and inverse temperatures beta.

    Attributes
    ----------
    sweep_config : SweepConfig, after `configure_sweep`
    sweep_df : pandas.DataFrame, after `sweep`
        A row for each point: what the estimator returned, ``epsilon`` and ``beta``.
    fig : plotly.graph_objects.Figure, after `plot`

    Examples
    --------
    >>> def estimator(epsilon, beta):
    ...     return {"llc/trace": np.full((2, 3), beta)}
    >>> analyzer = EpsilonBetaAnalyzer()
    >>> analyzer.configure_sweep(estimator, {}, epsilon_range=[1e-4], beta_range=[1.0, 10.0])
    >>> analyzer.sweep()
    >>> analyzer.sweep_df["beta"].tolist()
    [1.0, 10.0]
    """

    def __init__(self) -> None:
        self.sweep_config: SweepConfig | None = None
        self.plotting_config: Any = None
        self.sweep_df: pd.DataFrame | None = None
        self.fig: Any = None

    def configure_sweep(
        self,
        llc_estimator: Callable[..., dict[str, Any]],
        llc_estimator_kwargs: dict[str, Any],
        min_epsilon: float | None = 1e-6,
        max_epsilon: float | None = 1e-2,
        epsilon_samples: int = 8,
        epsilon_range: Sequence[float] | None = None,
        min_beta: float | None = None,
        max_beta: float | None = None,
        beta_samples: int = 8,
        beta_range: Sequence[float] | None = None,
        dataloader: DataLoader[Any] | None = None,
    ) -> None:
        """Say what to run.

        Parameters
        ----------
        llc_estimator, llc_estimator_kwargs
            See `SweepConfig`.
        min_epsilon, max_epsilon, epsilon_samples
            Bounds of the step sizes, and how many, geometrically spaced.
        epsilon_range : sequence of float, optional
            The step sizes themselves.
        min_beta, max_beta, beta_samples, beta_range
            The same of inverse temperatures.
        dataloader : DataLoader, optional
            Whose `default_nbeta`, times 1e-2 and 1e3, are the bounds that are not given.

        Raises
        ------
        ValueError
            If bounds of beta are neither given nor follow from a loader.
        AssertionError
            If a range is no sequence, or not positive.
        """
        if dataloader is not None and beta_range is None:
            usual = default_nbeta(dataloader)
            min_beta = 1e-2 * usual if min_beta is None else min_beta
            max_beta = 1e3 * usual if max_beta is None else max_beta
        ranges: list[Sequence[float]] = []
        for name, given, low, high, count in (
            ("epsilon", epsilon_range, min_epsilon, max_epsilon, epsilon_samples),
            ("beta", beta_range, min_beta, max_beta, beta_samples),
        ):
            if given is None:
                if low is None or high is None:
                    raise ValueError(
                        f"min_{name} and max_{name} must be provided without a dataloader"
                    )
                given = np.geomspace(low, high, count).tolist()
            elif not isinstance(given, (Sequence, np.ndarray)):
                raise AssertionError(f"{name}_range must be a list-like object, got {given!r}")
            ranges.append(given)
        self.sweep_config = SweepConfig(ranges[0], ranges[1], llc_estimator, llc_estimator_kwargs)

    def sweep(self, add_to_existing: bool = False) -> None:
        """Run the estimator at all points; those where it raises a RuntimeError are left out.

        Parameters
        ----------
        add_to_existing : bool
            Whether results are added to those of an earlier sweep.
        """
        config = self.sweep_config
        if config is None:
            raise AssertionError("Sweep configuration is not set. Call configure_sweep() first.")
        device = torch.device(config.llc_estimator_kwargs.get("device", "cuda"))
        if device.type == "cpu" and torch.cuda.is_available():
            warnings.warn("CUDA is available but not being used.", stacklevel=2)
        points = [(e, b) for e in config.epsilon_range for b in config.beta_range]
        found = []
        for epsilon, beta in tqdm(points):
            try:
                stats = config.llc_estimator(
                    epsilon=epsilon, beta=beta, **config.llc_estimator_kwargs
                )
            except RuntimeError as error:
                warnings.warn(f"epsilon={epsilon}, beta={beta} is left out: {error}", stacklevel=2)
                continue
            trace = np.atleast_2d(stats["llc/trace"])
            found.append({**stats, "llc/trace": trace, "epsilon": epsilon, "beta": beta})
        frame = pd.DataFrame(found)
        if add_to_existing and self.sweep_df is not None:
            frame = pd.concat([self.sweep_df, frame], ignore_index=True)
        self.sweep_df = frame

    def plot(
        self,
        true_lambda: Any = None,
        num_last_steps_to_average: int = 50,
        color: str | None = None,
        slider: str | None = None,
        slider_plane: bool = False,
        div_out_beta: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Show the coefficients as points over epsilon and beta, all axes logarithmic.

        Parameters
        ----------
        true_lambda : float, sequence of float or str, optional
            The truth, a plane if it is a number; or the column that holds it.
        num_last_steps_to_average : int
            How many draws, the last ones, coefficients are means over.
        color : str, optional
            The column that colors points: by default spread over mean, or the distance from the
            truth.
        slider : str, optional
            A column; points of one value of it at a time are shown.
        slider_plane : bool
            Whether each value of it has a plane there.
        div_out_beta : bool
            Whether coefficients are divided by beta.
        **kwargs
            For ``plotly.express.scatter_3d``.

        Returns
        -------
        plotly.graph_objects.Figure

        Raises
        ------
        ImportError
            Without plotly.
        """
        try:
            import plotly.express as px
        except ImportError as error:
            raise ImportError("plot needs plotly: pip install plotly") from error
        if self.sweep_df is None or self.sweep_config is None:
            raise AssertionError("No data to plot. Call sweep() first.")
        frame = _with_statistics(self.sweep_df, true_lambda, num_last_steps_to_average)
        color = color or ("llc/std_over_mean" if true_lambda is None else "log_lambda_delta")
        ranges = {"llc/std_over_mean": [0, 0.15], "log_lambda_delta": [-4, 4]}
        what = "LLC / beta" if div_out_beta else "LLC"
        options = {
            "x": "epsilon",
            "y": "beta",
            "z": "llc_div_beta" if div_out_beta else "llc/final",
            "color": color,
            "log_x": True,
            "log_y": True,
            "log_z": True,
            "title": f"{what} vs. epsilon and beta",
            "range_color": ranges.get(color),
            **kwargs,
        }
        if slider is None:
            figure = px.scatter_3d(frame, **options)
            if isinstance(true_lambda, (int, float)):
                figure.add_trace(self._plane(true_lambda, f"RLCT={true_lambda}"))
        else:
            figure = self._slide(px, frame, slider, slider_plane, options)
        self.fig = figure
        return figure

    def save_fig(self, path: str) -> None:
        """Write the last plot to an HTML file."""
        if self.fig is None:
            raise AssertionError("No figure to save. Call plot() first.")
        self.fig.write_html(path)

    def _plane(self, height: float, name: str) -> Any:
        import plotly.graph_objects as go

        assert self.sweep_config is not None
        x, y = self.sweep_config.epsilon_range, self.sweep_config.beta_range
        z = np.full((len(y), len(x)), float(height))
        return go.Surface(x=x, y=y, z=z, opacity=0.4, surfacecolor=z, showscale=False, name=name)

    def _slide(
        self, px: Any, frame: pd.DataFrame, slider: str, planes: bool, options: dict[str, Any]
    ) -> Any:
        """Return a figure with the points of each value of a column, one shown at a time."""
        values = sorted(frame[slider].unique())
        for axis in "xyz":
            column = frame[options[axis]]
            options.setdefault(f"range_{axis}", [max(column.min(), 1e-12) / 2, column.max() * 2])
        if options["range_color"] is None:
            column = frame[options["color"]]
            options["range_color"] = [column.min(), column.max()]
        figure = None
        steps = []
        each = 2 if planes else 1
        for i, value in enumerate(values):
            points = px.scatter_3d(frame[frame[slider] == value], **options)
            if figure is None:
                figure = points
            else:
                figure.add_trace(points.data[0])
            if planes:
                figure.add_trace(self._plane(value, f"{slider}={value}"))
            visible = [i == j for j in range(len(values)) for _ in range(each)]
            title = f"{options['title']} ({slider} = {value})"
            args = [{"visible": visible}, {"title": title}]
            steps.append({"method": "update", "args": args, "label": str(value)})
        assert figure is not None
        figure.update_layout(
            sliders=[{"active": 0, "currentvalue": {"prefix": f"{slider}: "}, "steps": steps}]
        )
        return figure


def _with_statistics(frame: pd.DataFrame, true_lambda: Any, last: int) -> pd.DataFrame:
    """Add what is plotted to a copy of the sweep's results."""
    frame = frame.copy()
    traces = frame["llc/trace"]
    frame["llc/std_over_mean"] = [t[:, -last:].std() / t[:, -last:].mean() for t in traces]
    frame["llc/final"] = [t[:, -last:].mean() for t in traces]
    frame["llc_div_beta"] = frame["llc/final"] / frame["beta"]
    if true_lambda is not None:
        truth = frame[true_lambda] if isinstance(true_lambda, str) else true_lambda
        frame["true_lambda"] = truth
        frame["lambda_delta"] = frame["llc/final"] - frame["true_lambda"]
        frame["log_true_lambda"] = np.log10(frame["true_lambda"].abs())
        frame["log_lambda_hat"] = np.log10(frame["llc/final"].abs())
        frame["log_delta_lambda"] = frame["log_lambda_hat"] - frame["log_true_lambda"]
        delta = frame["lambda_delta"]
        frame["log_lambda_delta"] = np.log10(delta.abs()) * np.sign(delta)
    return frame
