"""Measures `neumf generate` and, on the same ratings in the same run, the TensorFlow official models' NCF generator.

Prints a Markdown table. Everything is written below a temporary folder and deleted once it has been measured.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import psutil

from benchmarks.make_ratings import ML_20M_ROWS, NUM_ITEMS, users_of
from benchmarks.measure import CommandFailedError, Measurement, folder_bytes, measure
from benchmarks.official.environment import OFFICIAL_PYTHON, ROOT, check_official_environment, official_variables

NEUMF = Path(sys.executable).with_name("neumf")
PREBATCH_SIZE = 99_000
NUM_NEGATIVES = 4
OFFICIAL = "official `create_ncf_data`"

_MILLION = 1_000_000


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        program: What was measured.
        num_rows: Ratings read.
        offline_epochs: Training epochs written with their negatives.
        measurement: What it took.
    """

    program: str
    num_rows: int
    offline_epochs: int
    measurement: Measurement


def rows_of_size(millions: int) -> int:
    """Returns the ratings of a size; 20 means as many as ml-20m has."""
    return ML_20M_ROWS if millions == 20 else millions * _MILLION


def run_ours(ratings: Path, folder: Path, offline_epochs: int) -> Measurement:
    """Measures `neumf generate`: held-out items, positives, the loo-999-masked rows and the offline epochs."""
    parameters = {"protocols": "loo-999-masked", "eval_prebatch_size": PREBATCH_SIZE}
    if offline_epochs:
        parameters |= {
            "offline_epochs": offline_epochs,
            "num_offline_negatives": NUM_NEGATIVES,
            "train_prebatch_size": PREBATCH_SIZE,
        }
    settings = [text for name, value in parameters.items() for text in ("--set", f"generate.{name}={value}")]
    output = folder / "examples"
    command = [str(NEUMF), "generate", "--ratings", str(ratings), "--output", str(output), *settings]
    return measure(command, output, folder / "neumf.log", os.environ)


def run_official(csv: Path, num_users: int, folder: Path) -> Measurement:
    """Measures the official generator: preprocessing, one training epoch and the evaluation rows."""
    data = folder / "official"
    (data / "ml-20m").mkdir(parents=True)
    # It looks for these three names and, if they are there, downloads nothing; of the last two it reads neither.
    (data / "ml-20m" / "ratings.csv").hardlink_to(csv)
    for name in ("ml-20m.zip", "movies.csv"):
        (data / "ml-20m" / name).touch()
    before = folder_bytes(data)
    flags = {
        "dataset": "ml-20m",
        "data_dir": data,
        "meta_data_file_path": data / "meta_data.json",
        "num_train_epochs": 1,
        "num_negative_samples": NUM_NEGATIVES,
        "train_prebatch_size": PREBATCH_SIZE,
        "eval_prebatch_size": PREBATCH_SIZE,
        "num_users": num_users,
        "num_items": NUM_ITEMS,
    }
    script = ROOT / "benchmarks" / "official" / "create_ncf_data.py"
    command = [str(OFFICIAL_PYTHON), str(script), *(f"--{name}={value}" for name, value in flags.items())]
    measurement = measure(command, data, folder / "official.log", official_variables())
    # Its cache of the sorted ratings is no result.
    cache = sum(path.stat().st_size for path in (data / "ml-20m").glob("*.pickle"))
    written = measurement.bytes_written - before - cache
    return Measurement(**{**vars(measurement), "bytes_written": written})


def measure_size(work: Path, num_rows: int, offline_epochs: list[int], with_official: bool) -> Iterator[Row]:
    """Makes the ratings of one size and measures on them.

    Args:
        work: An empty folder.
        num_rows: Ratings to make.
        offline_epochs: One run of ours for each.
        with_official: Whether to run the official generator, too.
    """
    csv, ratings = work / "ratings.csv", work / "ratings"
    _report(f"making {num_rows:,} ratings")
    # In a process of its own, so that this one stays small: the kernel counts it in the peak of what it starts.
    make = [sys.executable, "-m", "benchmarks.make_ratings", "--rows", str(num_rows), "--seed", "1", str(csv)]
    measure(make, work, work / "make_ratings.log", {**os.environ, "PYTHONPATH": str(ROOT)})
    columns = "user=user_id,item=item_id,rating=rating,timestamp=timestamp"
    download = [str(NEUMF), "download", "--dataset", f"csv:{csv}", "--set", f"download.columns={columns}"]
    measure([*download, "--output", str(ratings)], ratings, work / "download.log", os.environ)
    for epochs in offline_epochs:
        _report(f"neumf generate, {num_rows:,} ratings, offline epochs: {epochs}")
        with _emptied_after(work / "measured") as folder:
            yield Row("`neumf generate`", num_rows, epochs, run_ours(ratings, folder, epochs))
    if with_official:
        _report(f"official generator, {num_rows:,} ratings, offline epochs: 1")
        with _emptied_after(work / "measured") as folder:
            yield Row(OFFICIAL, num_rows, 1, run_official(csv, users_of(num_rows), folder))


@contextmanager
def _emptied_after(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def format_table(rows: list[Row]) -> str:
    """Returns the Markdown table; ratios are to the official generator's run of the same work, if there is one."""
    official = {(row.num_rows, row.offline_epochs): row.measurement for row in rows if row.program == OFFICIAL}
    lines = [
        "| ratings | program | offline epochs | wall | processor | peak memory "
        "| written | wall, of official's | memory, of official's |",
        "|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        took, peer = row.measurement, official.get((row.num_rows, row.offline_epochs))
        ratios = ["", ""]
        if peer is not None and peer is not took:
            ratios = [f"{took.wall_s / peer.wall_s:.2f}", f"{took.peak_bytes / peer.peak_bytes:.2f}"]
        cells = [f"{row.num_rows:,}", row.program, str(row.offline_epochs), f"{took.wall_s:.1f} s"]
        cells += [f"{took.processor_s:.1f} s", _megabytes(took.peak_bytes)]
        cells += [_megabytes(took.bytes_written), *ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _report(line: str) -> None:
    click.echo(line, err=True)


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.0f} MB"


def _integers(_context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        return [int(part) for part in value.split(",") if part]
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a list of whole numbers as 1,5,20", param=parameter) from None


@click.command()
@click.option("--sizes", default="1,5,20,60", show_default=True, callback=_integers, help="Millions of ratings.")
@click.option("--official-size", default="20", show_default=True, callback=_integers,
              help="Those of the sizes on which the official generator runs too; empty for none.")  # fmt: skip
@click.option("--offline-epochs", default="0,1", show_default=True, callback=_integers,
              help="A run of ours for each: training epochs to write with their negatives.")  # fmt: skip
@click.option("--work-dir", type=click.Path(path_type=Path, exists=True, file_okay=False),
              help="Where the temporary folder goes: the largest size takes about 12 GB.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="A file that takes the table, too.")
def main(
    sizes: list[int], official_size: list[int], offline_epochs: list[int], work_dir: Path | None, output: Path | None
) -> None:
    """Measure generate beside the TensorFlow official models' generator."""
    if set(official_size) & set(sizes):
        check_official_environment()
    rows: list[Row] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="bench-generate-", dir=work_dir) as folder:
            try:
                measured = measure_size(Path(folder), rows_of_size(size), offline_epochs, size in official_size)
                for row in measured:
                    rows.append(row)
                    _report(f"  {row.measurement}")
            except CommandFailedError as error:
                raise click.ClickException(str(error)) from error
    memory = f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    table = f"{psutil.cpu_count()} processors, {memory}, NumPy {np.__version__}\n\n{format_table(rows)}\n"
    click.echo(table)
    if output is not None:
        output.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
