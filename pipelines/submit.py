"""From a command line to a run on a backend, and back to what became of it."""

import contextlib
import secrets
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.ncf.errors import InputError
from pipelines.backends import Backend, Definition, Submission
from pipelines.cache_keys import changed_steps, own_images, step_keys, unpinned_images
from pipelines.compile import compile_pipeline
from pipelines.data_digest import source_uri, stored_md5
from pipelines.findings import Mistakes
from pipelines.parameters import check_parameters, resolve_parameters, type_mistakes
from pipelines.placement import Placement
from pipelines.places import places_on_this_machine
from pipelines.preflight import IMAGE_TAG, Plan, check_plan
from pipelines.regions import region_mistake
from pipelines.schedules import existing_schedule, title_of
from pipelines.submit_options import SubmitOptions
from pipelines.template import (
    check_target,
    load_template,
    open_template,
    parameters_of,
    placement_of,
    value_mistakes,
)
from pipelines.watch import RunState, check_outcome, follow

_NUM_SHOWN_DIGITS = 12
_INTERRUPTED = 130
_INSISTING = "Change that, or give --no-preflight to submit it as it is."


class InterruptedFollowingError(InputError):
    """Ctrl-C while following: the run goes on."""

    exit_status = _INTERRUPTED


def submit(
    options: SubmitOptions, placement: Placement, preset: str, overrides: Iterable[str], console: Console
) -> None:
    """Does what the options ask for.

    Args:
        options: The options.
        placement: What to compile for, unless a compiled pipeline is given.
        preset: A preset's name.
        overrides: Texts "step.parameter=value".
        console: Where to print.

    Raises:
        InputError: A mistake, an error of the backend, a run that failed or was cancelled, or Ctrl-C.
    """
    _check_target(options, placement)
    if options.list_schedules:
        _print_schedules(_backend(options), console)
    elif options.delete_schedule:
        _backend(options).delete_schedule(options.delete_schedule)
        console.print(f"deleted {escape(options.delete_schedule)}", soft_wrap=True, highlight=False)
    elif options.cancel:
        _backend(options).cancel(options.cancel)
        console.print(f"cancelling {escape(options.cancel)}", soft_wrap=True, highlight=False)
    elif options.follow:
        _follow(options, _backend(options), options.follow, console)
    elif options.resume:
        backend = _backend(options)
        _announce(options, backend, backend.resume(options.resume, _job_id(options)), console)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            template, now = _prepare(options, placement, preset, list(overrides), Path(scratch), console)
            _submit_template(options, template, now, console)


def _check_target(options: SubmitOptions, placement: Placement) -> None:
    """Refuses a target that the backend cannot run."""
    if options.backend == "kfp" and placement.is_vertex:
        raise InputError(f"--target {placement.target} is of use with --backend vertex alone: leave it out.")
    if options.backend == "vertex" and not placement.is_vertex:
        raise InputError(f"--target {placement.target} does not run on Vertex AI: choose one that begins with vertex-.")
    if placement.target == "local":
        raise InputError("--target local is for this machine, where `neumf run` runs the pipeline: leave it out.")


def _prepare(
    options: SubmitOptions,
    placement: Placement,
    preset: str,
    overrides: list[str],
    scratch: Path,
    console: Console,
) -> tuple[Path, Definition]:
    """Returns the file of a compiled pipeline, and what it holds with the parameters that differ from its defaults."""
    place = (options.location, options.pipeline_root, options.service_account)
    if options.template is None:
        parameters = resolve_parameters(preset, overrides)
        _check(options, parameters, placement.checkpoint_root)
        if options.preflight:
            _check_plan(Plan(placement, parameters, *place, None), console)
        _add_data_digest(options, parameters["download"], console)
        template = scratch / "neumf.yaml"
        compile_pipeline(placement, parameters, template)
        return template, Definition(load_template(template), {})
    return options.template, _prepare_template(options, options.template, preset, overrides, console)


def _prepare_template(
    options: SubmitOptions, template: Path, preset: str, overrides: list[str], console: Console
) -> Definition:
    """Checks a compiled pipeline and returns what it holds with the parameters that differ from its defaults."""
    spec = open_template(template, preset)
    check_target(template, spec, options.backend)
    parameters, values = parameters_of(spec, overrides)
    for mistake in type_mistakes(parameters):
        raise InputError(f"--template {template}: {mistake}")
    _check(options, parameters, None)
    mistakes = Mistakes(are_noted=True)
    try:
        placement = placement_of(spec, mistakes) if options.preflight else None
    except InputError as unreadable:
        raise InputError(f"{unreadable} {_INSISTING}") from unreadable
    if placement is not None:
        images = tuple(own_images(step_keys(spec, values)))
        place = (options.location, options.pipeline_root, options.service_account)
        _check_plan(Plan(placement, parameters, *place, None, images, tuple(mistakes.found)), console)
    compiled_digest = parameters["download"]["data_digest"]
    _add_data_digest(options, parameters["download"], console)
    if parameters["download"]["data_digest"] != compiled_digest:
        values["download_data_digest"] = parameters["download"]["data_digest"]
    for mistake in value_mistakes(template, spec, values):
        raise InputError(mistake)
    return Definition(spec, values)


def _check_plan(plan: Plan, console: Console) -> None:
    """Prints what may go wrong with what is compiled, and refuses what would.

    Raises:
        InputError: There are errors, of which it names all.
    """
    # A tag does no harm without caching, and is refused with it where the images of templates are too.
    findings = [finding for finding in check_plan(plan) if finding.subject != IMAGE_TAG]
    for finding in findings:
        if finding.severity == "warning":
            _say(console, f"warning: {finding.subject}: {finding.message}")
    errors = [f"{finding.subject}: {finding.message}" for finding in findings if finding.severity == "error"]
    if errors:
        raise InputError(f"{' '.join(errors)} {_INSISTING}")


def _add_data_digest(options: SubmitOptions, download: dict[str, Any], console: Console) -> None:
    """Makes the data's digest a parameter, so that it is part of the cache keys and checked by the step."""
    uri = source_uri(download)
    if not options.caching or not uri or download["data_digest"]:
        return
    if options.offline and uri.startswith("gs://"):
        _say(console, f"not checked: whether {uri} has changed, which a dry run without a network cannot see")
        return
    download["data_digest"] = stored_md5(uri) if uri.startswith("gs://") else ""
    if not download["data_digest"]:
        _say(
            console,
            f"{uri} has no digest that can be read from here: the cache will not notice when it changes. Give "
            "--set download.data_digest=MD5, or --no-caching.",
        )


def _say(console: Console, text: str) -> None:
    console.print(escape(text), soft_wrap=True, highlight=False)


def _submit_template(options: SubmitOptions, template: Path, now: Definition, console: Console) -> None:
    if options.caching and not options.dry_run:
        _check_pinned(now)
    backend = None if options.offline else _backend(options)
    if options.dry_run or options.compare:
        _print_plan(now, _earlier(options.compare, backend), console)
    if options.dry_run or backend is None:
        _finish_dry_run(options, now, console)
        return
    if options.schedule:
        _schedule(options, Submission(template, now.values, title_of(options, now)), now, backend, console)
        return
    _announce(options, backend, backend.submit(Submission(template, now.values, _job_id(options))), console)


def _schedule(
    options: SubmitOptions, submission: Submission, now: Definition, backend: Backend, console: Console
) -> None:
    """Makes a schedule, unless the same one is there, as after an answer that was lost."""
    found = existing_schedule(options, submission.job_id, now, backend)
    made = found or backend.schedule(submission, str(options.schedule))
    there = ", which exists with the same pipeline and parameters: nothing was made" if found else ""
    _say(console, f"schedule {made.name} ({made.state}): {made.cron}{there}")


def _check_pinned(now: Definition) -> None:
    for image, step in unpinned_images(step_keys(now.spec, now.values)).items():
        raise InputError(
            f"The image {image} of {step} is named by a tag: once the image is rebuilt, the cache would still return "
            "what the old one made. Name the images by digest with --image-digests-file or --image-digest, or give "
            "--no-caching."
        )


def _finish_dry_run(options: SubmitOptions, now: Definition, console: Console) -> None:
    """Makes the checks that submitting makes and the plan does not need, and says which cannot be made."""
    if options.caching:
        _check_pinned(now)
    mistake = region_mistake(options.location) if options.backend == "vertex" and options.location else None
    if mistake:
        raise InputError(mistake)
    if options.missing:
        _say(console, f"not checked: {', '.join(options.missing)}, without which nothing can be submitted")


def _announce(options: SubmitOptions, backend: Backend, job: str, console: Console) -> None:
    console.print(f"job {escape(job)}", soft_wrap=True, highlight=False)
    console.print(f"see {escape(backend.link(job))}", soft_wrap=True, highlight=False)
    if options.wait:
        _follow(options, backend, job, console)


def _follow(options: SubmitOptions, backend: Backend, job: str, console: Console) -> None:
    try:
        with _noticing_ctrl_c() as was_pressed:

            def state() -> RunState:
                found = backend.state(job)
                if was_pressed:
                    raise KeyboardInterrupt
                return found

            run = follow(state, console, options.poll_s)
    except KeyboardInterrupt:
        command = f"neumf submit --backend {options.backend}{_place(options)}"
        raise InterruptedFollowingError(
            f"{job} keeps running: follow it with `{command} --follow {job}`, stop it with `{command} --cancel {job}`."
        ) from None
    check_outcome(run, job)
    console.print(f"job {escape(job)} succeeded", soft_wrap=True, highlight=False)


@contextlib.contextmanager
def _noticing_ctrl_c() -> Iterator[list[int]]:
    """Notes Ctrl-C beside raising it: what a client's callback raises is lost.

    Yields:
        The signal's number, once it has come.
    """
    pressed: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _place(options: SubmitOptions) -> str:
    given: dict[str, Any] = {
        "--project": options.project,
        "--location": options.location,
        "--endpoint": options.endpoint,
    }
    if options.backend == "kfp":
        given = {"--host": options.host, "--namespace": options.namespace, "--token-file": options.token_file,
                 "--ca-certificate": options.ca_certificate}  # fmt: skip
    return "".join(f" {flag} {value}" for flag, value in given.items() if value)


def _backend(options: SubmitOptions) -> Backend:
    if options.backend == "vertex":
        from pipelines.submit_vertex import VertexBackend

        return VertexBackend(options)
    from pipelines.submit_kubeflow import KubeflowBackend

    return KubeflowBackend(options)


def _earlier(compare: str | None, backend: Backend | None) -> Definition | None:
    if not compare:
        return None
    if Path(compare).is_file():
        return Definition(load_template(Path(compare)), {})
    assert backend is not None
    return backend.definition(compare)


def _print_plan(now: Definition, earlier: Definition | None, console: Console) -> None:
    keys = step_keys(now.spec, now.values)
    table = Table("step", "cache key", *(["runs again because"] if earlier else []), box=None)
    changes = changed_steps(step_keys(earlier.spec, earlier.values), keys) if earlier else []
    for index, step in enumerate(keys):
        key = step.key[:_NUM_SHOWN_DIGITS] if step.is_cached else "(always runs)"
        reasons = [escape("; ".join(changes[index].reasons) or "(cached)")] if earlier else []
        table.add_row(step.step, key, *reasons)
    console.print(table)


def _print_schedules(backend: Backend, console: Console) -> None:
    for schedule in backend.schedules():
        console.print(
            f"{escape(schedule.name)}  {escape(schedule.cron)}  {schedule.state}  {escape(schedule.title)}",
            soft_wrap=True, highlight=False,
        )  # fmt: skip


def _job_id(options: SubmitOptions) -> str:
    # Two may be submitted within a second.
    return options.job_id or f"neumf-{time.strftime('%Y%m%d%H%M%S')}-{secrets.token_hex(3)}"


def _check(options: SubmitOptions, parameters: Mapping[str, Mapping[str, Any]], checkpoint_root: str | None) -> None:
    """Refuses values and places that would fail where the steps run.

    Args:
        options: What is asked for.
        parameters: Every parameter of every step.
        checkpoint_root: What a folder for checkpoints will be made of, beside `train.checkpoint_dir`.
    """
    check_parameters(parameters)
    for sentence in places_on_this_machine(parameters):
        raise InputError(sentence)
    if options.schedule and (checkpoint_root or parameters["train"]["checkpoint_dir"]):
        raise InputError(
            "--schedule goes neither with --checkpoint-root nor with train.checkpoint_dir: a later run's examples are "
            "others, and train refuses another run's checkpoints. Compile without it."
        )
