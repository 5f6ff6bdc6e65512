"""Uploads a compiled pipeline to an Artifact Registry of KFP templates, or starts it on Vertex AI.

python -m images.template upload PIPELINE.yaml HOST TAG…
python -m images.template submit PIPELINE.yaml PROJECT REGION PIPELINE_ROOT [SERVICE_ACCOUNT]
"""

import sys
from typing import Any


def upload(pipeline: str, host: str, tags: list[str]) -> str:
    """Uploads a pipeline and returns "package/version".

    Args:
        pipeline: The compiled YAML.
        host: For example "https://europe-west4-kfp.pkg.dev/my-project/my-repository".
        tags: Names of this version.

    Raises:
        requests.RequestException: The registry cannot be reached or refuses it.
    """
    from kfp.registry import RegistryClient

    package, version = RegistryClient(host=host).upload_pipeline(pipeline, tags=tags)
    return f"{package}/{version}"


def submit(pipeline: str, project: str, region: str, pipeline_root: str, service_account: str | None) -> str:
    """Starts a pipeline on Vertex AI with its own defaults and returns the run's name."""
    from google.cloud import aiplatform

    job: Any = aiplatform.PipelineJob(
        display_name="neumf", template_path=pipeline, pipeline_root=pipeline_root, project=project, location=region
    )
    job.submit(service_account=service_account)
    return str(job.resource_name)


def main() -> None:
    """Runs the command line."""
    command, pipeline, *rest = sys.argv[1:]
    if command == "upload":
        done = upload(pipeline, rest[0], rest[1:])
    else:
        project, region, pipeline_root, service_account = [*rest, ""][:4]
        done = submit(pipeline, project, region, pipeline_root, service_account or None)
    sys.stdout.write(f"{command}: {done}\n")


if __name__ == "__main__":
    main()
