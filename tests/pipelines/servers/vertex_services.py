"""What Vertex does with pipeline jobs, schedules, models, custom jobs and experiments, as far as a client can tell.

State lives in memory. Time is counted in questions: each `get_pipeline_job` moves a job one state on, so that a test
needs no clock.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from google.cloud import aiplatform_v1 as v1
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2, json_format, timestamp_pb2
from grpc import StatusCode

from tests.pipelines.servers.grpc_server import ApiError
from tests.pipelines.servers.model_services import ModelServices

PROJECT, LOCATION = "my-project", "europe-west4"
PARENT = f"projects/{PROJECT}/locations/{LOCATION}"
STATE = v1.PipelineTaskDetail.State
JOB_STATE = v1.PipelineState
KNOWN_ACCOUNTS = ("pipeline@my-project.iam.gserviceaccount.com",)
_CONTAINER_TYPES = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool,
                    "LIST": list, "STRUCT": dict}  # fmt: skip
# Which machines an accelerator is attached to, after Google's page on compute resources for training.
_MACHINES_WITH = {
    "": r"(n1|n2|n2d|e2|c2|c3|m1|m2)-(standard|highmem|highcpu|ultramem|megamem)-\d+|ct5lp-hightpu-[148]t",
    "NVIDIA_TESLA_T4": r"n1-(standard|highmem|highcpu)-\d+",
    "NVIDIA_L4": r"g2-standard-\d+",
    "NVIDIA_TESLA_A100": r"a2-(highgpu-[1248]|megagpu-16)g",
    "NVIDIA_A100_80GB": r"a2-ultragpu-[1248]g",
    "NVIDIA_H100_80GB": r"a3-highgpu-[1248]g",
    "TPU_V2": "cloud-tpu",
    "TPU_V3": "cloud-tpu",
}


@dataclass
class World:
    """What differs from a world in which everything succeeds.

    Attributes:
        failing_tasks: What a task dies of, by its name.
        false_conditions: Tasks (of conditions) that are not triggered.
    """

    failing_tasks: dict[str, str] = field(default_factory=dict)
    false_conditions: set[str] = field(default_factory=set)


class VertexServices(ModelServices):
    """PipelineService, ScheduleService, JobService, ModelService and MetadataService in one object."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.jobs: dict[str, Any] = {}
        self.schedules: dict[str, Any] = {}
        self.custom_jobs: dict[str, Any] = {}
        self.contexts: dict[str, Any] = {}
        self.context_children: dict[str, list[str]] = {}
        self._cache: set[str] = set()
        self._ids = iter(range(1000, 10**9))
        self._clock = iter(range(1_790_000_000, 10**12))

    # PipelineService

    def create_pipeline_job(self, request: Any) -> Any:
        name = f"{request.parent}/pipelineJobs/{request.pipeline_job_id}"
        self._check_parent(request.parent)
        if not re.fullmatch("[a-z0-9][-a-z0-9]{0,127}", request.pipeline_job_id):
            raise _invalid(f"The pipeline job ID {request.pipeline_job_id!r} is invalid.")
        if name in self.jobs:
            raise ApiError(StatusCode.ALREADY_EXISTS, f"Resource already exists: {name}")
        job = v1.PipelineJob(request.pipeline_job)
        self._check_job(job)
        job.name, job.state = name, JOB_STATE.PIPELINE_STATE_PENDING
        job.create_time = self._now()
        job.job_detail.pipeline_run_context = self._add_context(request.pipeline_job_id, "system.PipelineRun")
        job.job_detail.task_details = list(self._tasks(job))
        self.jobs[name] = job
        return job

    def get_pipeline_job(self, request: Any) -> Any:
        job = self._job(request.name)
        self._step(job)
        return job

    def list_pipeline_jobs(self, _: Any) -> Any:
        return v1.ListPipelineJobsResponse(pipeline_jobs=list(self.jobs.values()))

    def cancel_pipeline_job(self, request: Any) -> Any:
        job = self._job(request.name)
        if job.state not in (JOB_STATE.PIPELINE_STATE_PENDING, JOB_STATE.PIPELINE_STATE_RUNNING):
            raise ApiError(
                StatusCode.FAILED_PRECONDITION, f"The PipelineJob {request.name} is in state {job.state.name} and "
                "cannot be cancelled.")  # fmt: skip
        job.state = JOB_STATE.PIPELINE_STATE_CANCELLING
        return empty_pb2.Empty()

    def _job(self, name: str) -> Any:
        if name not in self.jobs:
            raise ApiError(StatusCode.NOT_FOUND, f"The PipelineJob {name} does not exist.")
        return self.jobs[name]

    def _check_parent(self, parent: str) -> None:
        project = parent.split("/")[1]
        if project != PROJECT:
            raise ApiError(
                StatusCode.PERMISSION_DENIED,
                f"Permission 'aiplatform.pipelineJobs.create' denied on resource "
                f"'//aiplatform.googleapis.com/{parent}' (or it may not exist).",
                "IAM_PERMISSION_DENIED", permission="aiplatform.pipelineJobs.create",
            )  # fmt: skip

    def _check_job(self, job: Any) -> None:
        spec = json_format.MessageToDict(job._pb.pipeline_spec)
        runtime = job.runtime_config
        if not re.fullmatch(r"gs://[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9](/.*)?", runtime.gcs_output_directory):
            raise _invalid(f"The GCS output directory {runtime.gcs_output_directory!r} is not a valid GCS path.")
        if job.service_account and job.service_account not in KNOWN_ACCOUNTS:
            raise _invalid(f"Service account {job.service_account} does not exist.")
        if job.network and not re.fullmatch(r"projects/\d+/global/networks/[-a-z0-9]+", job.network):
            raise _invalid(
                f"Network {job.network} is invalid: it must be projects/{{project number}}/global/networks/."
            )
        for name, value in job.labels.items():
            if not re.fullmatch("[a-z][-_a-z0-9]{0,62}", name) or not re.fullmatch("[-_a-z0-9]{0,63}", value):
                raise _invalid(f"Label {name}={value} is invalid.")
        if spec.get("schemaVersion") not in ("2.1.0", "2.0.0"):
            raise _invalid("The pipeline spec's schema version is not supported.")
        declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        values = json_format.MessageToDict(job._pb.runtime_config).get("parameterValues", {})
        for name in values:
            if name not in declared:
                raise _invalid(f"Parameter {name!r} is not defined in the pipeline's inputs.")
        for name, definition in declared.items():
            value = values.get(name, definition.get("defaultValue"))
            if value is None and not definition.get("isOptional"):
                raise _invalid(f"Required input parameter {name!r} is missing.")
            if value is not None and not isinstance(value, _CONTAINER_TYPES[definition["parameterType"]]):
                raise _invalid(f"Parameter {name!r} must be of type {definition['parameterType']}.")

    def _tasks(self, job: Any) -> Any:
        spec = json_format.MessageToDict(job._pb.pipeline_spec)
        ids: dict[str, int] = {}
        for name, parent in _walk(spec, spec["root"]["dag"], ""):
            ids[f"{parent}{name}"] = next(self._ids)
            yield v1.PipelineTaskDetail(
                task_id=ids[f"{parent}{name}"],
                parent_task_id=ids.get(parent.rstrip("."), 0),
                task_name=name,
                task_unique_name=f"{parent}{name}",
                state=STATE.PENDING,
            )

    def _step(self, job: Any) -> None:
        """Moves the job one state on."""
        if job.state == JOB_STATE.PIPELINE_STATE_CANCELLING:
            for task in job.job_detail.task_details:
                if task.state in (STATE.PENDING, STATE.RUNNING):
                    task.state = STATE.CANCELLED
            self._end(job, JOB_STATE.PIPELINE_STATE_CANCELLED, 1, "The pipeline job was cancelled.")
            return
        if job.state == JOB_STATE.PIPELINE_STATE_PENDING:
            job.state, job.start_time = JOB_STATE.PIPELINE_STATE_RUNNING, self._now()
            return
        if job.state != JOB_STATE.PIPELINE_STATE_RUNNING:
            return
        failed: list[str] = []
        for task in job.job_detail.task_details:
            if task.state == STATE.PENDING:
                self._start(job, task)
                failed = [task.task_name] if task.state == STATE.FAILED else []
                break
            if task.state == STATE.RUNNING:
                self._finish(job, task)
                failed = [task.task_name] if task.state == STATE.FAILED else []
                break
        else:
            self._end(job, JOB_STATE.PIPELINE_STATE_SUCCEEDED)
            return
        if failed:
            message = (
                f"The DAG failed because some tasks failed. The failed tasks are: {failed}.; Job (project_id = "
                f"{PROJECT}, job_id = 1) is failed due to the above error.; Failed to handle the job."
            )
            self._end(job, JOB_STATE.PIPELINE_STATE_FAILED, 9, message)

    def _start(self, job: Any, task: Any) -> None:
        task.start_time = self._now()
        parents = task.task_unique_name.split(".")
        if self.world.false_conditions & set(parents):
            task.state = STATE.NOT_TRIGGERED
            return
        key = _cache_key(job, task.task_unique_name)
        if key in self._cache:
            task.state = STATE.SKIPPED
            return
        custom_job = f"{PARENT}/customJobs/{next(self._ids)}"
        try:
            job_spec = _custom_job_spec(job, task.task_name)
        except (ValueError, json_format.ParseError) as error:
            # Vertex takes the pipeline and refuses the job that one of its tasks asks for.
            task.state, task.error.code, task.error.message = STATE.FAILED, 3, f"INVALID_ARGUMENT: {error}"
            return
        task.state = STATE.RUNNING
        self.custom_jobs[custom_job] = v1.CustomJob(
            name=custom_job, display_name=task.task_name, state=v1.JobState.JOB_STATE_RUNNING, job_spec=job_spec
        )
        task.executor_detail.container_detail.main_job = custom_job

    def _finish(self, job: Any, task: Any) -> None:
        task.end_time = self._now()
        custom_job = self.custom_jobs[task.executor_detail.container_detail.main_job]
        if task.task_name in self.world.failing_tasks:
            task.state, task.error.code = STATE.FAILED, 9
            task.error.message = self.world.failing_tasks[task.task_name]
            custom_job.state = v1.JobState.JOB_STATE_FAILED
            return
        task.state, custom_job.state = STATE.SUCCEEDED, v1.JobState.JOB_STATE_SUCCEEDED
        key = _cache_key(job, task.task_unique_name)
        if key:
            self._cache.add(key)

    def _end(self, job: Any, state: Any, code: int = 0, message: str = "") -> None:
        job.state, job.end_time = state, self._now()
        if message:
            job.error.code, job.error.message = code, message

    def _now(self) -> Any:
        return timestamp_pb2.Timestamp(seconds=next(self._clock))

    # JobService

    def get_custom_job(self, request: Any) -> Any:
        if request.name not in self.custom_jobs:
            raise ApiError(StatusCode.NOT_FOUND, f"The CustomJob {request.name} does not exist.")
        return self.custom_jobs[request.name]

    # ScheduleService

    def create_schedule(self, request: Any) -> Any:
        self._check_parent(request.parent)
        schedule = v1.Schedule(request.schedule)
        fields = re.sub(r"^(CRON_TZ|TZ)=\S+ ", "", schedule.cron).split()
        if len(fields) != 5:
            raise _invalid(f"The cron expression {schedule.cron!r} is invalid: it must have five fields.")
        self._check_job(schedule.create_pipeline_job_request.pipeline_job)
        if schedule.max_concurrent_run_count < 1:
            raise _invalid("max_concurrent_run_count must be positive.")
        schedule.name = f"{request.parent}/schedules/{next(self._ids)}"
        schedule.state, schedule.create_time = v1.Schedule.State.ACTIVE, self._now()
        self.schedules[schedule.name] = schedule
        return schedule

    def list_schedules(self, request: Any) -> Any:
        title = re.fullmatch('(?:display_name="([^"]+)")?', request.filter).group(1)  # type: ignore[union-attr]
        found = [s for s in self.schedules.values() if s.name.startswith(f"{request.parent}/")]
        found = [schedule for schedule in found if title in (None, schedule.display_name)]
        return v1.ListSchedulesResponse(schedules=found)

    def get_schedule(self, request: Any) -> Any:
        return self.schedules[request.name]

    def delete_schedule(self, request: Any) -> Any:
        if request.name not in self.schedules:
            raise ApiError(StatusCode.NOT_FOUND, f"The Schedule {request.name} does not exist.")
        del self.schedules[request.name]
        operation = operations_pb2.Operation(name=f"{PARENT}/operations/{next(self._ids)}", done=True)
        operation.response.Pack(empty_pb2.Empty())
        return operation

    # MetadataService

    def get_metadata_store(self, request: Any) -> Any:
        return v1.MetadataStore(name=request.name)

    def get_context(self, request: Any) -> Any:
        if request.name not in self.contexts:
            raise ApiError(StatusCode.NOT_FOUND, f"Context with name {request.name} is not found.")
        return self.contexts[request.name]

    def create_context(self, request: Any) -> Any:
        self._check_parent(request.parent)
        context = self._add_context(request.context_id, request.context.schema_title)
        context.display_name, context.metadata = request.context.display_name, request.context.metadata
        return context

    def add_context_children(self, request: Any) -> Any:
        self.context_children.setdefault(request.context, []).extend(request.child_contexts)
        return v1.AddContextChildrenResponse()

    def _add_context(self, context_id: str, schema_title: str) -> Any:
        name = f"{PARENT}/metadataStores/default/contexts/{context_id}"
        self.contexts[name] = v1.Context(name=name, schema_title=schema_title, schema_version="0.0.1")
        return self.contexts[name]


def _walk(spec: Any, dag: Any, parent: str) -> Any:
    """Yields the tasks of a DAG and of those within it, each after what it depends on."""
    done: list[str] = []
    while len(done) < len(dag["tasks"]):
        for name, task in dag["tasks"].items():
            if name in done or not set(task.get("dependentTasks", ())) <= set(done):
                continue
            done.append(name)
            yield name, parent
            component = spec["components"][task["componentRef"]["name"]]
            if "dag" in component:
                yield from _walk(spec, component["dag"], f"{parent}{name}.")


def _cache_key(job: Any, unique_name: str) -> str:
    """What this server holds for equal: the component, its executor, its inputs, the same of all tasks before it."""
    spec = json_format.MessageToDict(job._pb.pipeline_spec)
    values = json_format.MessageToDict(job._pb.runtime_config).get("parameterValues", {})
    dag = spec["root"]["dag"]
    *parents, name = unique_name.split(".")
    if parents:
        return ""
    task = dag["tasks"][name]
    component = spec["components"][task["componentRef"]["name"]]
    if not task.get("cachingOptions", {}).get("enableCache") or "executorLabel" not in component:
        return ""
    defaults = {
        key: definition.get("defaultValue")
        for key, definition in spec["root"].get("inputDefinitions", {}).get("parameters", {}).items()
    }
    given = {
        key: {**defaults, **values}[source["componentInputParameter"]]
        for key, source in task.get("inputs", {}).get("parameters", {}).items() if "componentInputParameter" in source
    }  # fmt: skip
    executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
    before = [_cache_key(job, upstream) for upstream in sorted(task.get("dependentTasks", ()))]
    # What ran again made new artifacts, whatever is in them.
    return json.dumps([component, executor, given, before], sort_keys=True) if all(before) else ""


def _invalid(message: str) -> ApiError:
    return ApiError(StatusCode.INVALID_ARGUMENT, message)


def _custom_job_spec(job: Any, task_name: str) -> Any:
    """Returns the spec of the custom job that a task asks for, empty if it is a container of the pipeline's own.

    Raises:
        ValueError: Vertex AI refuses it.
        json_format.ParseError: It has a field or a value that the service's definition lacks.
    """
    spec = json_format.MessageToDict(job._pb.pipeline_spec)
    component = next((c for name, c in spec["components"].items() if name == f"comp-{task_name}"), {})
    definition = component.get("inputDefinitions", {}).get("parameters", {}).get("worker_pool_specs")
    made = v1.CustomJobSpec()
    if definition is None:
        return made
    given = next(t for t in spec["root"]["dag"]["tasks"].values() if t["componentRef"]["name"] == f"comp-{task_name}")
    given = given.get("inputs", {}).get("parameters", {}).get("worker_pool_specs", {})
    pools = given.get("runtimeValue", {}).get("constant", definition.get("defaultValue"))
    # Numbers of a compiled pipeline are floating-point.
    json_format.ParseDict({"workerPoolSpecs": json.loads(json.dumps(pools))}, made._pb)
    for pool in made.worker_pool_specs:
        machine = pool.machine_spec
        accelerator = machine.accelerator_type.name.removeprefix("ACCELERATOR_TYPE_UNSPECIFIED")
        if not re.fullmatch(_MACHINES_WITH.get(accelerator, "-"), machine.machine_type):
            raise ValueError(f"Machine type {machine.machine_type!r} is not supported with {accelerator or 'none'!r}.")
        if bool(accelerator) != bool(machine.accelerator_count):
            raise ValueError(f"accelerator_count {machine.accelerator_count} does not fit {accelerator or 'none'!r}.")
        if ("tpu" in machine.machine_type) and pool.replica_count != 1:
            raise ValueError("A TPU's worker pool must have one replica.")
        if not pool.container_spec.image_uri:
            raise ValueError("A worker pool must have a container.")
    return made
