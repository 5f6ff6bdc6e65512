"""The KFP interface of the publish step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("publish"), install_kfp_package=False)
def publish(
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    project: str,
    location: str,
    endpoint: str,
    model_name: str,
    aliases: list[str],
    serving_image: str,
    serving_predict_route: str,
    serving_health_route: str,
    staging_bucket: str,
    metrics_schema: dsl.Output[dsl.Artifact],
    publication: dsl.Output[dsl.Artifact],
) -> None:
    """Registers the model as a new version in the Vertex Model Registry, with its evaluation.

    Args:
        model: What train wrote.
        evaluation: What evaluate wrote.
        decision: What gate wrote; the step fails if it is not to promote.
        project: The project of the registry.
        location: Its region.
        endpoint: The API's host, for a private one; empty for the region's own.
        model_name: The model's id in the registry.
        aliases: What the new version is called, as "candidate" or "champion".
        serving_image: The container that serves the SavedModel.
        serving_predict_route: Its HTTP path; empty for a container of Google's.
        serving_health_route: Its HTTP path; empty for a container of Google's.
        staging_bucket: A gs:// folder to copy the SavedModel to if the artifacts are in no gs:// bucket; or empty.
        metrics_schema: A YAML file: what the imported metrics are, as OpenAPI.
        publication: publication.json (name, version, aliases, labels, evaluations), manifest.json.
    """
    from pathlib import Path

    from components.ncf.step import running_step
    from components.publish.config import PublishConfig
    from components.publish.publish import Sources
    from components.publish.publish import publish as run

    with running_step("publish"):
        config = PublishConfig(
            project=project,
            location=location,
            endpoint=endpoint,
            model_name=model_name,
            aliases=tuple(aliases),
            serving_image=serving_image,
            serving_predict_route=serving_predict_route,
            serving_health_route=serving_health_route,
            staging_bucket=staging_bucket,
        )
        sources = Sources(Path(model.path), model.uri, Path(evaluation.path), Path(decision.path))
        run(config, sources, Path(metrics_schema.path), metrics_schema.uri, Path(publication.path))
