"""Uploads a compiled pipeline to an Artifact Registry of KFP templates.

python -m images.template PIPELINE.yaml HOST TAG…
"""

import sys


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


def main() -> None:
    """Runs the command line."""
    pipeline, host, *tags = sys.argv[1:]
    sys.stdout.write(f"uploaded: {upload(pipeline, host, tags)}\n")


if __name__ == "__main__":
    main()
