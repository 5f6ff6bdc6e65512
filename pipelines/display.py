"""Shows a run: a live line for the running step on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table

_METRICS = ("hr@10", "ndcg@10")


class RunDisplay:
    """Prints each step as it starts and ends; a `pipelines.run_local.StepObserver`."""

    def __init__(self, console: Console, num_steps: int) -> None:
        """Prepares the display.

        Args:
            console: Where to print.
            num_steps: How many steps the pipeline has.
        """
        self._console = console
        self._num_steps = num_steps
        self._num_started = 0
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._started = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_live()

    def step_started(self, step: str) -> None:
        """Announces the step."""
        self._num_started += 1
        self._started = time.perf_counter()
        if self._console.is_terminal:
            # Standard output stays what it is: the runner's lines are read from it.
            self._spinner.update(text=self._label(step))
            self._live = Live(
                self._spinner, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        else:
            self._console.print(f"{self._label(step)} started", highlight=False)

    def step_logged(self, step: str, line: str) -> None:
        """Shows the step's own progress, not what its libraries print."""
        if not line.startswith(f"{step}: "):
            return
        text = escape(line.removeprefix(f"{step}: "))
        if self._live is not None:
            elapsed = time.perf_counter() - self._started
            self._spinner.update(text=f"{self._label(step)} [dim]{elapsed:.0f} s · {text}[/dim]")
        else:
            self._console.print(f"      {text}", highlight=False, soft_wrap=True)

    def step_ended(self, step: str, duration_s: float, succeeded: bool) -> None:
        """Says how long the step took."""
        self._stop_live()
        outcome = "[green]finished[/green]" if succeeded else "[red]failed[/red]"
        self._console.print(f"{self._label(step)} {outcome} in {duration_s:.1f} s", highlight=False)

    def _label(self, step: str) -> str:
        return f"\\[{self._num_started}/{self._num_steps}] [bold]{step}[/bold]"

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def print_summary(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints the metrics and the places of the report, the data card and the model."""
    model, *others = summary["systems"]
    table = Table("protocol", "metric", model, "95 % interval", *others)
    for protocol, metrics in summary["metrics"].items():
        for name in _METRICS:
            low, high = metrics[f"{name}_interval"]
            compared = (f"{metrics[other][name]:.4f}" for other in others)
            table.add_row(protocol, name.upper(), f"{metrics[name]:.4f}", f"{low:.4f} to {high:.4f}", *compared)
    console.print(table)
    if summary["model_selection"] == "test":
        console.print("The epoch was chosen by the test item (the published practice), which flatters these figures.")
    best = summary.get("best_hr@10")
    if best is not None:
        console.print(f"The best HR@10 that any ranking can reach on this data set is {best:.4f} (loo-99).")
    decision = summary["decision"]
    verdict = "[green]promoted[/green]" if decision["promoted"] else "[red]not promoted[/red]"
    console.print(f"gate    {verdict}: {escape(decision['reason'])}", soft_wrap=True, highlight=False)
    places = {"report": summary["report"], "data": summary["data_card"], "model": summary["artifacts"]["model"]}
    if "recommendations" in summary["artifacts"]:
        places["top"] = summary["artifacts"]["recommendations"]
    for name, place in places.items():
        console.print(f"{name:<7} {escape(place)}", soft_wrap=True, highlight=False)
