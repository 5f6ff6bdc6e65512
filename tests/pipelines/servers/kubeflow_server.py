"""A server for the REST API v2beta1 of Kubeflow Pipelines, as its published client expects it.

State lives in memory, and each question about a run moves it one state on, as in `vertex_services`.
"""

import json
import re
import ssl
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token"
_DONE = ("SUCCEEDED", "FAILED", "CANCELED")
_TYPES = {"STRING": str, "NUMBER_INTEGER": (int, float), "NUMBER_DOUBLE": (int, float), "BOOLEAN": bool, "LIST": list,
          "STRUCT": dict}  # fmt: skip
Json = dict[str, Any]


class HttpError(Exception):
    """An answer other than 200, in the form that the real server's gateway gives it."""

    def __init__(self, status: int, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": message, "code": code, "message": message, "details": []}


class KubeflowServices:
    """Experiments, runs and recurring runs."""

    def __init__(self) -> None:
        self.failing_tasks: dict[str, str] = {}
        self.experiments: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.recurring_runs: dict[str, Json] = {}
        self._cache: set[str] = set()

    def healthz(self, _: Json) -> Json:
        return {"multi_user": False}

    def create_experiment(self, body: Json) -> Json:
        experiment = {**body, "experiment_id": str(uuid.uuid4())}
        self.experiments[experiment["experiment_id"]] = experiment
        return experiment

    def list_experiments(self, query: Json) -> Json:
        predicates = json.loads(query.get("filter", "{}")).get("predicates", [])
        names = [p["string_value"] if "string_value" in p else p["stringValue"] for p in predicates]
        return {"experiments": [e for e in self.experiments.values() if e["display_name"] in names]}

    def create_run(self, body: Json) -> Json:
        _check(body)
        run = {**body, "run_id": str(uuid.uuid4()), "state": "PENDING", "created_at": "2026-01-01T00:00:00Z"}
        names = list(_order(_spec(body)))
        # Kubeflow lists its own pods, too.
        pods = ["root", "root-driver", *(pod for name in names for pod in (f"{name}-driver", name))]
        run["run_details"] = {"task_details": [{"display_name": pod, "state": "PENDING"} for pod in pods]}
        self.runs[run["run_id"]] = run
        return run

    def list_runs(self, query: Json) -> Json:
        (predicate,) = json.loads(query["filter"])["predicates"]
        assert (predicate["operation"], predicate["key"]) == ("EQUALS", "display_name")
        named = [run for run in self.runs.values() if run["display_name"] == predicate["stringValue"]]
        return {"runs": [run for run in named if run["experiment_id"] == query["experiment_id"]]}

    def get_run(self, run_id: str) -> Json:
        run = self._run(run_id)
        self._step(run)
        return run

    def terminate_run(self, run_id: str) -> Json:
        run = self._run(run_id)
        if run["state"] in (*_DONE, "CANCELING"):
            raise HttpError(400, f"Failed to terminate a run: the run {run_id} is in the state {run['state']}", 9)
        run["state"] = "CANCELING"
        return {}

    def retry_run(self, run_id: str) -> Json:
        run = self._run(run_id)
        if run["state"] not in ("FAILED", "CANCELED"):
            raise HttpError(400, f"Failed to retry a run: only failed or terminated ones can be retried: {run_id}", 9)
        run["state"] = "RUNNING"
        run.pop("error", None)
        for task in run["run_details"]["task_details"]:
            if task["state"] in ("FAILED", "CANCELED"):
                task["state"] = "PENDING"
                task.pop("error", None)
        return {}

    def create_recurring_run(self, body: Json) -> Json:
        _check(body)
        cron = body["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) != 6:
            raise HttpError(400, f"The cron string {cron!r} must have six fields, the second first", 3)
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        made = {**body, "recurring_run_id": str(uuid.uuid4()), "status": status}
        self.recurring_runs[made["recurring_run_id"]] = made
        return made

    def list_recurring_runs(self, query: Json) -> Json:
        """One a page: a client that ignores the token of the next page loses some."""
        (predicate,) = json.loads(query["filter"])["predicates"] if "filter" in query else ({},)
        name = predicate.get("stringValue")
        found = [run for run in self.recurring_runs.values() if name in (None, run["display_name"])]
        start = int(query.get("page_token") or 0)
        token = {"next_page_token": str(start + 1)} if start + 1 < len(found) else {}
        return {"recurringRuns": found[start : start + 1], "total_size": len(found), **token}

    def delete_recurring_run(self, recurring_run_id: str) -> Json:
        if recurring_run_id not in self.recurring_runs:
            raise HttpError(404, f"RecurringRun {recurring_run_id} not found", 5)
        del self.recurring_runs[recurring_run_id]
        return {}

    def _run(self, run_id: str) -> Json:
        if run_id not in self.runs:
            raise HttpError(404, f"Failed to get a run: Run {run_id} not found", 5)
        return self.runs[run_id]

    def _step(self, run: Json) -> None:
        tasks = run["run_details"]["task_details"]
        if run["state"] == "CANCELING":
            run["state"] = "CANCELED"
            for task in tasks:
                task["state"] = task["state"] if task["state"] == "SUCCEEDED" else "CANCELED"
        elif run["state"] == "PENDING":
            run["state"] = "RUNNING"
        elif run["state"] == "RUNNING":
            self._advance(run, tasks)

    def _advance(self, run: Json, tasks: list[Json]) -> None:
        for task in tasks:
            name = task["display_name"]
            if task["state"] == "PENDING":
                task["pod_name"] = f"neumf-{name}-1"
                key = _cache_key(run, name)
                task["state"] = "SKIPPED" if key and key in self._cache else "RUNNING"
                return
            if task["state"] == "RUNNING" and name in self.failing_tasks:
                task["state"], task["error"] = "FAILED", {"code": 9, "message": self.failing_tasks[name]}
                run["state"], run["error"] = "FAILED", {"code": 9, "message": f"{name} failed"}
                return
            if task["state"] == "RUNNING":
                task["state"] = "SUCCEEDED"
                self._cache.add(_cache_key(run, name) or "")
                return
        run["state"] = "SUCCEEDED"


def _spec(run: Json) -> Json:
    """With options for Kubernetes the client sends two documents, else one."""
    return run["pipeline_spec"].get("pipeline_spec", run["pipeline_spec"])


def _check(body: Json) -> None:
    if not body.get("experiment_id"):
        raise HttpError(400, "The experiment is missing", 3)
    spec = _spec(body)
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in body.get("runtime_config", {}).get("parameters", {}).items():
        if name not in declared:
            raise HttpError(400, f"unknown parameter {name}", 3)
        if not isinstance(value, _TYPES[declared[name]["parameterType"]]):
            raise HttpError(400, f"input parameter {name} requires type {declared[name]['parameterType']}", 3)


def _order(spec: Json) -> Any:
    tasks, done = spec["root"]["dag"]["tasks"], []
    while len(done) < len(tasks):
        for name, task in tasks.items():
            if name not in done and set(task.get("dependentTasks", ())) <= set(done):
                done.append(name)
                yield name


def _cache_key(run: Json, name: str) -> str:
    spec = _spec(run)
    task = spec["root"]["dag"]["tasks"].get(name)
    if task is None or not task.get("cachingOptions", {}).get("enableCache"):
        return ""
    values = run.get("runtime_config", {}).get("parameters", {})
    given = {key: values.get(source.get("componentInputParameter"), "default")
             for key, source in task.get("inputs", {}).get("parameters", {}).items()}  # fmt: skip
    before = [_cache_key(run, upstream) for upstream in sorted(task.get("dependentTasks", ()))]
    executors = spec["deploymentSpec"]["executors"]
    label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    # What ran again made new artifacts, whatever is in them.
    return json.dumps([executors[label], given, before], sort_keys=True) if all(before) else ""


_ROUTES = (
    ("GET", r"/healthz", "healthz"),
    ("POST", r"/experiments", "create_experiment"),
    ("GET", r"/experiments", "list_experiments"),
    ("POST", r"/runs", "create_run"),
    ("GET", r"/runs", "list_runs"),
    ("GET", r"/runs/([^/:]+)", "get_run"),
    ("POST", r"/runs/([^/:]+):terminate", "terminate_run"),
    ("POST", r"/runs/([^/:]+):retry", "retry_run"),
    ("POST", r"/recurringruns", "create_recurring_run"),
    ("GET", r"/recurringruns", "list_recurring_runs"),
    ("DELETE", r"/recurringruns/([^/:]+)", "delete_recurring_run"),
)


class KubeflowServer:
    """Serves over TLS on loopback until it is stopped.

    Attributes:
        url: Its address.
        calls: The names of the methods called, in order.
        failures: Answers to give instead of the real ones, by method; each is used up once.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.services = KubeflowServices()
        self.calls: list[str] = []
        self.failures: dict[str, list[HttpError]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("localhost", 0), self._make_handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> KubeflowServices:
        """Forgets everything."""
        with self._lock:
            self.services, self.calls, self.failures = KubeflowServices(), [], {}
        return self.services

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, verb: str, target: str, headers: Any, body: Any) -> tuple[int, Any]:
        with self._lock:
            try:
                return 200, self._route(verb, target, headers, body)
            except HttpError as error:
                return error.status, error.body

    def _route(self, verb: str, target: str, headers: Any, body: Any) -> Any:
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            raise HttpError(401, "Unauthorized", 16)
        url = urlsplit(target)
        for route_verb, pattern, name in _ROUTES:
            found = re.fullmatch(f"/apis/v2beta1{pattern}", url.path)
            if verb == route_verb and found:
                self.calls.append(name)
                if self.failures.get(name):
                    raise self.failures[name].pop(0)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                argument = found.group(1) if found.groups() else body if verb == "POST" else query
                return getattr(self.services, name)(argument)
        raise HttpError(404, f"Not Found: {verb} {url.path}", 5)

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                status, answer = server.answer(self.command, self.path, self.headers, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None: ...

        return Handler
