"""Gathers what the data card shows from the manifests, the counts and the list of rejected lines."""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from components.generate.card import CardContent, ProtocolRows
from components.ncf.errors import InputError
from components.ncf.manifest import Manifest
from components.report.data import popularity_of, quantiles_of, rows_into_splits
from components.report.distributions import make_bins
from components.report.protocols import Shortage, describe_candidates, shortage_of

OTHER_REASONS = "other reasons"
UNKNOWN_REASON = "no reason on record"

_HEADER = ["file", "line", "reason"]
_MAX_ROW_CHARACTERS = 1 << 16
_MAX_REASON_CHARACTERS = 200
# What stands in a reason for one line's own value, so that lines with the same fault are counted together.
_OWN_VALUES = (
    (re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""), "…"),
    (re.compile(r"\b(user id|item id|rating) \S+ is "), r"\1 … is "),
    (re.compile(r"\bfield: \d+ where "), "field: … where "),
)


def card_content(
    manifest: Manifest,
    ratings_manifest: Manifest,
    item_counts: NDArray[np.int64],
    users_by_count: Mapping[int, int],
    rejected_reasons: Mapping[str, int],
) -> CardContent:
    """Gathers what the data card shows.

    Args:
        manifest: Of the `examples`, as generate writes it.
        ratings_manifest: Of the `ratings` they were made from.
        item_counts: int64 [num_items], the training positives of each item.
        users_by_count: How many users have each number of training positives.
        rejected_reasons: Rejected lines by reason, as `count_reasons` returns them.

    Raises:
        ValueError: The counts are not those of the manifest.
    """
    expected = (manifest["num_items"], manifest["num_users"], *2 * (manifest["num_train_positives"],))
    user_counts, num_users_with = np.array(sorted(users_by_count.items()), np.int64).T
    found = (len(item_counts), int(num_users_with.sum()), int(item_counts.sum()), int(user_counts @ num_users_with))
    if found != expected:
        raise ValueError(f"counts of (items, users, positives, positives) are {found}, in the manifest {expected}")
    counts, num_users = manifest["counts"], manifest["num_users"]
    interactions_per_user = user_counts + 2
    num_unseen = manifest["num_items"] - interactions_per_user
    num_rejected = ratings_manifest.get("counts", {}).get("rejected", 0)
    timestamps = ratings_manifest.get("timestamp_range")
    return CardContent(
        title=str(manifest["dataset"]),
        num_read=counts["rows_read"],
        num_kept=counts["rows_kept"],
        num_users_read=counts["users_read"],
        num_users=num_users,
        num_items=manifest["num_items"],
        min_ratings=manifest["min_ratings"],
        is_order_known=timestamps is None or timestamps[0] < timestamps[1],
        has_given_test_items="fixed" in manifest["protocols"],
        flow=rows_into_splits(manifest),
        num_rejected=num_rejected,
        rejected=_ordered_reasons(rejected_reasons, num_rejected),
        popularity=popularity_of(item_counts),
        activity=make_bins(interactions_per_user, num_users_with),
        activity_quantiles=quantiles_of(interactions_per_user, num_users_with),
        protocols=tuple(
            _protocol_rows(name, entry, shortage_of(name, num_unseen, num_users_with))
            for name, entry in manifest["protocols"].items()
        ),
        num_offline_epochs=manifest["num_train_epochs"],
        num_rows_per_offline_epoch=manifest["num_train_elements"],
        source=_source(manifest, ratings_manifest),
        citation=ratings_manifest.get("citation") or "",
        digests=_present({"ratings": manifest["ratings_digest"], "examples": manifest.get("digest")}),
        parameters=_parameters(manifest, ratings_manifest),
    )


def count_reasons(stream: IO[bytes], max_reasons: int) -> dict[str, int]:
    """Counts the lines of `rejected.csv` by what is wrong with them, in bounded memory.

    Args:
        stream: The file's bytes from its start; it stays open.
        max_reasons: How many reasons are told apart; the lines of further ones are counted under OTHER_REASONS.

    Returns:
        By "file: reason", in which "…" stands for the values of single lines; in order of first appearance.

    Raises:
        InputError: This is no list of rejected lines.
    """
    counts: Counter[str] = Counter()
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="")
    # Not by the file's own lines: a damaged file may be a single long one.
    reader = csv.reader(iter(partial(text.readline, _MAX_ROW_CHARACTERS), ""))
    try:
        header = next(reader, [])
        for row in reader:
            if header != _HEADER or len(row) != len(_HEADER):
                break
            reason = f"{row[0]}: {_without_own_values(row[2])}"[:_MAX_REASON_CHARACTERS]
            counts[reason if reason in counts or len(counts) < max_reasons else OTHER_REASONS] += 1
        else:
            if header == _HEADER:
                return dict(counts)
        raise csv.Error("not a row of file, line and reason")
    except csv.Error as error:
        raise InputError(f"rejected.csv, line {reader.line_num}: {error}: run download again.") from None
    finally:
        text.detach()


def _without_own_values(reason: str) -> str:
    for pattern, replacement in _OWN_VALUES:
        reason = pattern.sub(replacement, reason)
    return reason


def _ordered_reasons(reasons: Mapping[str, int], num_rejected: int) -> tuple[tuple[str, int], ...]:
    unknown = num_rejected - sum(reasons.values())
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return (*ordered, *([(UNKNOWN_REASON, unknown)] if unknown > 0 else []))


def _protocol_rows(name: str, entry: Mapping[str, Any], shortage: Shortage | None) -> ProtocolRows:
    real_rows = entry["num_users"] * (entry["num_candidates"] + 1)
    return ProtocolRows(
        name=name,
        description=describe_candidates(name, shortage) or "",
        folder=entry["folder"],
        num_candidates=entry["num_candidates"],
        num_users=entry["num_users"],
        num_rows=entry["num_rows"],
        num_padding_rows=entry["num_rows"] - real_rows,
    )


def _present(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value not in (None, ""))


def _source(manifest: Manifest, ratings_manifest: Manifest) -> tuple[tuple[str, str], ...]:
    archive = ratings_manifest.get("archive") or {}
    size = archive.get("size_bytes")
    best = manifest.get("best_hr@10")
    return _present(
        {
            "Data set": manifest["dataset"],
            "Fetched from": ratings_manifest.get("url"),
            "Archive": f"{size:,} bytes" if size else None,
            "Archive md5": archive.get("md5"),
            "Licence": ratings_manifest.get("licence"),
            "Best reachable HR@10 under loo-99": None if best is None else f"{best:.3f}",
        }
    )


def _parameters(manifest: Manifest, ratings_manifest: Manifest) -> tuple[tuple[str, str], ...]:
    download = {f"download.{name}": value for name, value in ratings_manifest.get("parameters", {}).items()}
    generate = {f"generate.{name}": manifest.get(name) for name in ("min_ratings", "seed")}
    generate["generate.eval_prebatch_size"] = manifest.get("eval_prebatch_size")
    if manifest["num_train_epochs"]:
        generate["generate.train_prebatch_size"] = manifest.get("train_prebatch_size")
    return _present({**download, **generate})
