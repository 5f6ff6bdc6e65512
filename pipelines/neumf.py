"""The DAG."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from components.baseline.component import baseline
from components.download.component import download
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.generate.component import generate
from components.publish.component import publish
from components.recommend.component import recommend
from components.train.component import train
from pipelines.placed_steps import configure_task, placed_component
from pipelines.placement import Placement
from pipelines.presets import SHARED

COMPONENTS = {
    "download": download,
    "generate": generate,
    "train": train,
    "baseline": baseline,
    "evaluate": evaluate,
    "gate": gate,
    "recommend": recommend,
    "publish": publish,
}


class Outputs(NamedTuple):
    """The artifacts that a run leaves behind."""

    ratings: dsl.Dataset
    examples: dsl.Dataset
    model: dsl.Model
    baseline: dsl.Model
    evaluation: dsl.Artifact
    metrics: dsl.Metrics
    report: dsl.HTML
    decision: dsl.Artifact


def pipeline_parameter(step: str, parameter: str) -> str:
    """Returns the pipeline's name for a step's parameter, for example "train_learning_rate"."""
    step, parameter = SHARED.get((step, parameter), (step, parameter))
    return f"{step}_{parameter}"


def step_parameters(step: str) -> dict[str, type]:
    """Returns the names and types of a step's own parameters: no artifacts, and none of another step's."""
    return {name: kind for name, kind in _inputs(step).items() if (step, name) not in SHARED}


def _inputs(step: str) -> dict[str, type]:
    signature = inspect.signature(COMPONENTS[step].python_func)
    return {name: p.annotation for name, p in signature.parameters.items() if not _is_artifact(p.annotation)}


def _is_artifact(annotation: Any) -> bool:
    return hasattr(annotation, "__metadata__")


def build_pipeline(placement: Placement) -> Any:
    """Returns the DAG as kfp's compiler takes it, its steps placed where they will run."""

    def neumf(*values: Any) -> Outputs:
        channels = dict(zip(PARAMETERS, values, strict=True))

        def run(step: str, **artifacts: Any) -> Any:
            given = {name: channels[pipeline_parameter(step, name)] for name in _inputs(step)}
            task = placed_component(placement, step, COMPONENTS[step])(**artifacts, **given)
            configure_task(placement, step, task)
            return task.outputs

        return _steps(run, channels[pipeline_parameter("publish", "project")])

    neumf.__doc__ = _steps.__doc__
    # The pipeline's parameters are those of its steps, each behind its step's name: a parameter that a component gains
    # is a parameter of the pipeline without another line.
    neumf.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=t) for n, t in PARAMETERS.items()],
        return_annotation=Outputs,
    )
    return dsl.pipeline(name="neumf")(neumf)


def _steps(run: Callable[..., Any], publish_project: Any) -> Outputs:
    """Trains and evaluates a NeuMF recommender.

    1. download: fetches the interactions, checks and parses them.
    2. generate: holds items out, draws the evaluation candidates and writes TFRecords, with Apache Beam.
    3. train: fits NeuMF with a custom training loop and exports its best epoch.
    4. baseline: fits a matrix factorization by alternating least squares.
    5. evaluate: ranks the held-out items by each protocol, beside the baselines and a champion, and writes the report.
    6. gate: decides whether the model is good enough.
    7. recommend: writes the best items for each user, if it is.
    8. publish: registers the model in the Vertex Model Registry, if it is and a project is given.
    """
    ratings = run("download")["ratings"]
    examples = run("generate", ratings=ratings)["examples"]
    model = run("train", examples=examples)["model"]
    fitted = run("baseline", examples=examples)["baseline"]
    evaluated = run("evaluate", examples=examples, model=model, baseline=fitted)
    decided = run("gate", evaluation=evaluated["evaluation"])
    with dsl.If(decided["Output"] == "promoted", name="promoted"):
        run("recommend", examples=examples, model=model)
        with dsl.If(publish_project != "", name="published"):
            run("publish", model=model, evaluation=evaluated["evaluation"], decision=decided["decision"])
    return Outputs(
        ratings=ratings,
        examples=examples,
        model=model,
        baseline=fitted,
        evaluation=evaluated["evaluation"],
        metrics=evaluated["metrics"],
        report=evaluated["report"],
        decision=decided["decision"],
    )


PARAMETERS: dict[str, type] = {
    pipeline_parameter(step, name): annotation
    for step in COMPONENTS
    for name, annotation in step_parameters(step).items()
}
