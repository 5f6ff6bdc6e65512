"""Measures `neumf train` and, in the same run, its peers: a bare compiled step, the official models' loop and RecBole.

Prints a Markdown table. The programs take turns over several rounds, so that what else the machine does hits all
of them alike. Everything is written below a temporary folder and deleted in the end.
"""

import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks.measure import CommandFailedError, Measurement, measure
from benchmarks.official.environment import OFFICIAL_PYTHON, ROOT, check_official_environment, official_variables
from benchmarks.recbole.environment import RECBOLE_PYTHON, check_recbole_environment
from benchmarks.shapes import SHAPES, Shape
from benchmarks.throughput import read_throughput

NEUMF = Path(sys.executable).with_name("neumf")
OURS = "`neumf train`"
PROGRAMS = ("ours", "bare", "official", "recbole")
MLPERF_BATCH = 99_000
# RecBole's default train_batch_size.
RECBOLE_BATCH = 2_048
# Barely more than the 20 ratings that each user has at least: the tables are ml-20m's, an epoch is a seventh of its.
MADE_UP_ROWS = 3_000_000
_EVAL_PREBATCH_SIZE = 100_000

# By shape: epochs of ours, of which the first one is not counted if there are several, and examples of the bare step
# and of the official loop. Each is some seconds of work (ml-1m) or about a minute (the others).
_NUM_EPOCHS = {"ml-1m": 6, "ml-20m": 2, "mlperf": 1}
_BARE_EXAMPLES = {"ml-1m": 20_000_000, "ml-20m": 10_000_000, "mlperf": 5_000_000}
_OFFICIAL_EXAMPLES = {"ml-1m": 5_000_000, "ml-20m": 3_000_000, "mlperf": 3_000_000}
_RECBOLE_EPOCHS = {"ml-1m": 2, "ml-20m": 1}
# Of ml-1m, ours ranks the test items: 6 million scores an epoch. Of the others, the validation items: 13.8 million.
_MODEL_SELECTION = {"ml-1m": "test", "ml-20m": "validation", "mlperf": "validation"}


@dataclass(frozen=True)
class Run:
    """One run of one program.

    Attributes:
        program: As the table names it.
        shape: Name of the shape.
        global_batch_size: Examples in a step of ours, and of the program's unless its name says otherwise.
        examples_per_s: Of the median epoch, or of the median of some intervals of steady steps.
        peak_bytes: Of the process tree, from `measure`; preparing of data in the same process counts.
        first_step_s: From the start of the process to the first step. None: not measured.
        evaluation_s: Of an epoch's evaluation. None: not measured.
        host_data_s: What the host works on an epoch's data beside the steps. None: not measured.
    """

    program: str
    shape: str
    global_batch_size: int
    examples_per_s: float
    peak_bytes: int
    first_step_s: float | None = None
    evaluation_s: float | None = None
    host_data_s: float | None = None


@dataclass(frozen=True)
class OurFigures:
    """What `neumf train` says of itself; the attributes are those of `Run`."""

    examples_per_s: float
    first_step_s: float | None
    evaluation_s: float


def read_our_figures(training: Mapping[str, Any], log: str, wall_s: float) -> OurFigures:
    """Reads the figures of a run of `neumf train`: the only place that knows what its files and lines look like.

    Args:
        training: Content of training.json.
        log: What the step printed.
        wall_s: From the start of the process to its end. What the process did before the step's own clock started is
            the difference to `duration_s`, which includes the few tenths of a second in which it ended.
    """
    history = training["history"]
    steady = history[1:] or history
    compiled = re.search(r"compiled after ([\d.]+) s", log)
    return OurFigures(
        examples_per_s=statistics.median(entry["examples_per_s"] for entry in steady),
        first_step_s=wall_s - training["duration_s"] + float(compiled[1]) if compiled else None,
        evaluation_s=statistics.median(entry["evaluation_duration_s"] for entry in steady),
    )


class Bench:
    """Prepares data once and runs programs on it.

    Attributes:
        work: The folder for all files.
        with_official: Whether record files for the official loop are needed, too.
    """

    def __init__(
        self, work: Path, mirror: str, made_up_rows: int, train_settings: tuple[str, ...], with_official: bool
    ) -> None:
        """Prepares nothing yet.

        Args:
            work: An empty folder.
            mirror: Of MovieLens archives, as `neumf download --mirror` takes it; empty for the official host.
            made_up_rows: Made-up ratings of the shapes that have ml-20m's tables.
            train_settings: More `--set` of `neumf train`.
            with_official: See the attribute.
        """
        self.work, self.with_official = work, with_official
        self._mirror, self._made_up_rows, self._train_settings = mirror, made_up_rows, train_settings

    def ratings(self, shape: Shape) -> Path:
        """Returns the `ratings` folder of a shape, which is made at the first call."""
        folder = self.work / f"ratings-{shape.name}"
        if folder.exists():
            return folder
        command = [str(NEUMF), "download", "--output", str(folder)]
        if shape.name == "ml-1m":
            mirror = ["--mirror", self._mirror] if self._mirror else []
            self._prepare([*command, "--dataset", "ml-1m", *mirror])
            return folder
        csv = self.work / "ratings.csv"
        sizes = ["--rows", str(self._made_up_rows), "--users", str(shape.num_users)]
        self._prepare([sys.executable, "-m", "benchmarks.make_ratings", *sizes, "--seed", "1", str(csv)])
        columns = "user=user_id,item=item_id,rating=rating,timestamp=timestamp"
        self._prepare([*command, "--dataset", f"csv:{csv}", "--set", f"download.columns={columns}"])
        csv.unlink()
        return folder

    def examples(self, shape: Shape, global_batch_size: int) -> Path:
        """Returns an `examples` folder; the official loop needs one for each batch, with an epoch's negatives in it."""
        batch = global_batch_size if self.with_official else 0
        folder = self.work / f"examples-{shape.name}-{batch}"
        if not folder.exists():
            settings = {"protocols": "loo-999-masked", "eval_prebatch_size": _EVAL_PREBATCH_SIZE}
            if self.with_official:
                settings |= {"offline_epochs": 1, "train_prebatch_size": batch}
                settings |= {"num_offline_negatives": shape.num_train_negatives}
            command = [str(NEUMF), "generate", "--ratings", str(self.ratings(shape)), "--output", str(folder)]
            self._prepare([*command, *_as_options("generate", settings)])
        return folder

    def run_ours(self, shape: Shape, global_batch_size: int) -> Run:
        """Measures `neumf train` over a few epochs."""
        examples, output = self.examples(shape, global_batch_size), self._empty_folder() / "model"
        settings = {
            "num_factors": shape.num_factors,
            "mlp_layers": ",".join(map(str, shape.mlp_layers)),
            "num_train_negatives": shape.num_train_negatives,
            "global_batch_size": global_batch_size,
            "num_epochs": _NUM_EPOCHS[shape.name],
            "model_selection": _MODEL_SELECTION[shape.name],
        }
        command = [str(NEUMF), "train", "--preset", shape.preset, "--examples", str(examples), "--output", str(output)]
        more = [text for setting in self._train_settings for text in ("--set", setting)]
        took, log = self._measure([*command, *_as_options("train", settings), *more], os.environ)
        training = json.loads((output / "training.json").read_text(encoding="utf-8"))
        figures = read_our_figures(training, log, took.wall_s)
        return Run(OURS, shape.name, global_batch_size, peak_bytes=took.peak_bytes, **vars(figures))

    def run_bare(self, shape: Shape, global_batch_size: int, bfloat16: bool = False) -> Run:
        """Measures the bare compiled step."""
        command = [sys.executable, "-m", "benchmarks.bare_step", "--examples", str(_BARE_EXAMPLES[shape.name])]
        command += ["--shape", shape.name, "--batch", str(global_batch_size), *(["--bfloat16"] if bfloat16 else [])]
        program = "bare compiled step, bfloat16" if bfloat16 else "bare compiled step"
        return self._run_peer(program, shape, global_batch_size, command, {})

    def run_official(self, shape: Shape, global_batch_size: int) -> Run:
        """Measures the official custom training loop on our record files and, on ml-1m, its online data work."""
        examples = self.examples(shape, global_batch_size)
        flags = {
            "num_steps": max(20, _OFFICIAL_EXAMPLES[shape.name] // global_batch_size),
            "train_dataset_path": examples / "training_cycle_*" / "*",
            "eval_dataset_path": examples / "eval" / "*",
            "input_meta_data_path": examples / "manifest.json",
            "batch_size": global_batch_size,
            "eval_batch_size": _EVAL_PREBATCH_SIZE,
            "num_factors": shape.num_factors,
            "layers": ",".join(map(str, shape.mlp_layers)),
            "learning_rate": shape.learning_rate,
            "beta1": shape.beta1,
            "beta2": shape.beta2,
            "epsilon": shape.epsilon,
            "num_gpus": 0,
            "distribution_strategy": "one_device",
            "seed": 1,
            "model_dir": self._empty_folder(),
            "shape": shape.name,
        }
        command = [str(OFFICIAL_PYTHON), "-m", "benchmarks.official.measure_training", "--keras_use_ctl", "--ml_perf"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        seconds = self._measure_official_data(shape, global_batch_size) if shape.name == "ml-1m" else None
        program = "official training loop"
        return self._run_peer(program, shape, global_batch_size, command, official_variables(), seconds)

    def run_recbole(self, shape: Shape, global_batch_size: int, own_batch: bool = False) -> Run:
        """Measures RecBole over an epoch or two, at this batch or at the one that it comes with."""
        data_path = self.work / "recbole"
        atomic_file = data_path / shape.name / f"{shape.name}.inter"
        if not atomic_file.exists():
            columns = {"raw_user_id": "user_id:token", "raw_item_id": "item_id:token", "timestamp": "timestamp:float"}
            write_interactions(self.ratings(shape), atomic_file, columns, "\t")
        command = [str(RECBOLE_PYTHON), "-m", "benchmarks.recbole.measure_training", "--data-path", str(data_path)]
        command += ["--shape", shape.name, "--batch", str(RECBOLE_BATCH if own_batch else global_batch_size)]
        command += ["--epochs", str(_RECBOLE_EPOCHS[shape.name])]
        program = f"RecBole at its own batch, {RECBOLE_BATCH:,}" if own_batch else "RecBole"
        return self._run_peer(program, shape, global_batch_size, command, os.environ)

    def _run_peer(
        self,
        program: str,
        shape: Shape,
        global_batch_size: int,
        command: list[str],
        environment: Mapping[str, str],
        host_data_s: float | None = None,
    ) -> Run:
        output = self.work / "throughput.json"
        # `--output=PATH` is a form that click, absl and argparse share.
        took, _ = self._measure([*command, f"--output={output}"], environment)
        figures = read_throughput(output)
        return Run(
            program,
            shape.name,
            global_batch_size,
            figures.examples_per_s,
            took.peak_bytes,
            host_data_s=host_data_s,
        )

    def _measure_official_data(self, shape: Shape, global_batch_size: int) -> float:
        data, output = self.work / "official", self.work / "seconds.json"
        csv = data / shape.name / "ratings.csv"
        if not csv.exists():
            columns = {"raw_user_id": "user_id", "raw_item_id": "item_id", "rating": "rating", "timestamp": "timestamp"}
            write_interactions(self.ratings(shape), csv, columns, ",")
        flags = {"data_dir": data, "dataset": shape.name, "batch_size": global_batch_size, "output": output}
        command = [str(OFFICIAL_PYTHON), "-m", "benchmarks.official.measure_data"]
        self._measure([*command, *(f"--{name}={value}" for name, value in flags.items())], official_variables())
        return float(json.loads(output.read_text(encoding="utf-8"))["epoch_s"])

    def _prepare(self, command: list[str]) -> None:
        _report(f"preparing: {' '.join(command[:2])}")
        self._measure(command, os.environ)

    def _measure(self, command: list[str], environment: Mapping[str, str]) -> tuple[Measurement, str]:
        log = self.work / "log"
        variables = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
        return measure(command, self.work, log, variables), log.read_text(errors="replace")

    def _empty_folder(self) -> Path:
        folder = self.work / "measured"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def write_interactions(ratings: Path, path: Path, columns: Mapping[str, str], delimiter: str) -> None:
    """Writes a `ratings` folder's interactions as text.

    Args:
        ratings: The folder.
        path: The file to write.
        columns: Columns to take, with the names that they get in the first line.
        delimiter: Between columns.
    """
    files = sorted(ratings.glob("interactions-*.parquet"))
    table = pa.concat_tables([pq.read_table(file, columns=list(columns)) for file in files])
    path.parent.mkdir(parents=True, exist_ok=True)
    options = pa_csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style="none")
    with path.open("wb") as stream:
        # Arrow quotes the names of columns, which RecBole takes for a part of them.
        stream.write(delimiter.join(columns.values()).encode() + b"\n")
        pa_csv.write_csv(table, stream, options)


def _as_options(step: str, settings: Mapping[str, object]) -> list[str]:
    return [text for name, value in settings.items() for text in ("--set", f"{step}.{name}={value}")]


def format_table(runs: list[Run]) -> str:
    """Returns the Markdown table: a line for each program, shape and batch, with medians over its runs.

    The ratio is the median of our examples/s, of the line's shape and batch, by the line's: how many times as fast ours
    is.
    """
    by_line: dict[tuple[str, int, str], list[Run]] = {}
    for run in runs:
        by_line.setdefault((run.shape, run.global_batch_size, run.program), []).append(run)
    lines = [
        "| shape | batch | program | examples/s, median (range) | ours is … times as fast | peak memory "
        "| start to first step | evaluation an epoch | host data an epoch |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (shape, batch, program), group in by_line.items():
        rates = [run.examples_per_s for run in group]
        median = statistics.median(rates)
        ours = [run.examples_per_s for run in by_line.get((shape, batch, OURS), [])]
        ratio = f"{statistics.median(ours) / median:.2f}" if ours and program != OURS else ""
        cells = [shape, f"{batch:,}", program]
        cells += [f"{_thousands(median)} ({_thousands(min(rates))} to {_thousands(max(rates))})", ratio]
        cells += [f"{max(run.peak_bytes for run in group) / 1e6:,.0f} MB"]
        cells += [_median_seconds(group, name) for name in ("first_step_s", "evaluation_s", "host_data_s")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _thousands(rate: float) -> str:
    return f"{rate / 1e3:,.0f} k"


def _median_seconds(group: list[Run], name: str) -> str:
    values = [value for run in group if (value := getattr(run, name)) is not None]
    return f"{statistics.median(values):.2f} s" if values else ""


def plan_runs(
    bench: Bench, shapes: list[str], batches: list[int], programs: list[str], with_bfloat16: bool
) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Yields what a round runs, in its order: what is to be said of it, and the call that runs it."""
    for name in shapes:
        shape = SHAPES[name]
        for batch in [MLPERF_BATCH] if name == "mlperf" else batches:
            if "ours" in programs:
                yield f"ours, {name}, {batch:,}", lambda s=shape, b=batch: bench.run_ours(s, b)
            if "bare" in programs:
                yield f"bare step, {name}, {batch:,}", lambda s=shape, b=batch: bench.run_bare(s, b)
                if with_bfloat16:
                    label = f"bare step in bfloat16, {name}, {batch:,}"
                    yield label, lambda s=shape, b=batch: bench.run_bare(s, b, True)
            if "official" in programs:
                yield f"official loop, {name}, {batch:,}", lambda s=shape, b=batch: bench.run_official(s, b)
            if "recbole" in programs and name in _RECBOLE_EPOCHS:
                yield f"RecBole, {name}, {batch:,}", lambda s=shape, b=batch: bench.run_recbole(s, b)
                if batch != RECBOLE_BATCH:
                    label = f"RecBole at its own batch, {name}, {batch:,}"
                    yield label, lambda s=shape, b=batch: bench.run_recbole(s, b, own_batch=True)


def default_mirror() -> str:
    """Returns the `file://` mirror with MovieLens archives, where the tests look for it; empty if there is none."""
    folder = Path(os.environ.get("NEUMF_MOVIELENS_MIRROR", ROOT.parent / "shared" / "movielens"))
    return folder.resolve().as_uri() if folder.is_dir() else ""


def _report(line: str) -> None:
    click.echo(line, err=True)


def _names(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def parse(_context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
        names = [part for part in value.split(",") if part]
        if unknown := sorted(set(names) - set(known)):
            raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}", param=parameter)
        return names

    return parse


def _integers(_context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        return [int(part) for part in value.split(",") if part]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers as 4096,32768", param=parameter) from None


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each program.")
@click.option("--shapes", default="ml-1m,mlperf", show_default=True, callback=_names(tuple(SHAPES)))
@click.option("--batches", default="4096,32768", show_default=True, callback=_integers,
              help=f"Of ml-1m and ml-20m; mlperf has {MLPERF_BATCH:,}.")  # fmt: skip
@click.option("--skip", default="", callback=_names(PROGRAMS), help=f"Programs to leave out: {', '.join(PROGRAMS)}.")
@click.option("--bfloat16", is_flag=True, help="Run the bare step with matrix products in bfloat16, too.")
@click.option("--set", "train_settings", multiple=True, metavar="train.NAME=VALUE", help="For `neumf train`.")
@click.option("--mirror", help="Where ml-1m comes from, as neumf download takes it.  [default: NEUMF_MOVIELENS_MIRROR, "
              "or a folder shared/movielens beside the checkout]")  # fmt: skip
@click.option("--made-up-rows", type=int, default=MADE_UP_ROWS, show_default=True,
              help="Ratings of ml-20m and mlperf; 20000263 for as many as ml-20m has.")  # fmt: skip
@click.option("--work-dir", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Where the temporary folder goes.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="A file that takes the table, too.")
def main(
    rounds: int,
    shapes: list[str],
    batches: list[int],
    skip: list[str],
    bfloat16: bool,
    train_settings: tuple[str, ...],
    mirror: str | None,
    made_up_rows: int,
    work_dir: Path | None,
    output: Path | None,
) -> None:
    """Measure neumf train beside a bare compiled step, the TensorFlow official models' loop and RecBole."""
    programs = [name for name in PROGRAMS if name not in skip]
    if "official" in programs:
        check_official_environment()
    if "recbole" in programs:
        check_recbole_environment()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="bench-train-", dir=work_dir) as folder:
        mirror = default_mirror() if mirror is None else mirror
        bench = Bench(Path(folder), mirror, made_up_rows, train_settings, "official" in programs)
        try:
            for number in range(1, rounds + 1):
                for label, run in plan_runs(bench, shapes, batches, programs, bfloat16):
                    _report(f"round {number} of {rounds}: {label}")
                    runs.append(run())
                    _report(f"  {runs[-1]}")
        except CommandFailedError as error:
            raise click.ClickException(str(error)) from error
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    table = f"{psutil.cpu_count()} processors, {memory}, rounds: {rounds}\n\n{format_table(runs)}\n"
    click.echo(table)
    if output is not None:
        output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
