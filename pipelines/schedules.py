"""Which schedule a command asks for, and whether it is there already: two of them would start every run twice."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from components.ncf.errors import InputError
from pipelines.backends import Backend, Definition, Schedule
from pipelines.cron import without_seconds
from pipelines.submit_options import SubmitOptions

_DIGITS_OF_TITLE = 16


def title_of(options: SubmitOptions, wanted: Definition) -> str:
    """Returns what a schedule is called: by --job-id, else by all that it consists of, so that it is found again."""
    if options.job_id:
        return options.job_id
    parts = (wanted.spec, wanted.values, _cron(options), options.pipeline_root, options.service_account,
             options.network, sorted(options.labels), options.encryption_key, options.caching,
             options.experiment)  # fmt: skip
    text = json.dumps(parts, sort_keys=True)
    return f"neumf-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS_OF_TITLE]}"


def existing_schedule(options: SubmitOptions, title: str, wanted: Definition, backend: Backend) -> Schedule | None:
    """Returns the schedule that a command asks for where it exists; None where its title is free.

    Args:
        options: The command's.
        title: What `title_of` calls it.
        wanted: What the schedule's runs are.
        backend: Where it would be.

    Raises:
        InputError: Another one has its title.
    """
    found = backend.schedules(title)
    for schedule in found:
        # A title that was made of all parts says it all; the backend may have filled in what it holds.
        if options.job_id is None or _is_same(options, wanted, schedule):
            return schedule
    if found:
        raise InputError(
            f"There is a schedule {title} ({found[0].name}) that differs in its times, its pipeline, its labels or "
            f"where it runs: choose another --job-id, or delete it with --delete-schedule {found[0].name}."
        )
    return None


def _is_same(options: SubmitOptions, wanted: Definition, found: Schedule) -> bool:
    spec = wanted.spec if options.caching else _without_caching(wanted.spec, options.backend)
    places = ((options.pipeline_root, found.pipeline_root), (options.service_account, found.service_account))
    return (
        found.cron == _cron(options)
        and _comparable(found.definition.spec) == _comparable(spec)
        and dict(found.definition.values) == dict(wanted.values)
        and all(given in (None, held) for given, held in places)
        and (options.network or "", options.encryption_key or "") == (found.network, found.encryption_key)
        # Vertex AI may add some of its own.
        and options.label_values().items() <= found.labels.items()
    )


def _cron(options: SubmitOptions) -> str:
    return without_seconds(" ".join(str(options.schedule).split()))


def _without_caching(spec: Mapping[str, Any], backend: str) -> Mapping[str, Any]:
    """Returns a pipeline as the backend's client sends it with --no-caching; Kubeflow's leaves conditions alone."""
    changed = copy.deepcopy(dict(spec))
    inner = changed.get("components", {}).values() if backend == "vertex" else ()
    for component in (changed["root"], *inner):
        for task in component.get("dag", {}).get("tasks", {}).values():
            task.pop("cachingOptions", None)
    return changed


def _comparable(value: Any) -> Any:
    """Returns a part of a pipeline without what is said by leaving it out."""
    if isinstance(value, Mapping):
        parts = {name: _comparable(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part not in (None, False, {}, [])}
    return [_comparable(part) for part in value] if isinstance(value, list) else value
