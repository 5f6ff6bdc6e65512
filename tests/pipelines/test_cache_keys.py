"""The keys that decide which steps a backend runs again."""

from pipelines.cache_keys import fingerprint

DIGEST = "@sha256:" + "a" * 64
_DATASET = "title: kfp.Model\ntype: object\nproperties:\n" + "".join(
    f"  {name}:\n    type: string\n" for name in ("framework", "framework_version")
)


def test_a_key_is_the_one_that_kubeflow_pipelines_computes() -> None:
    """The example and its result are those of the backend's own test, in Go."""
    key = {
        "inputArtifactNames": {
            "dataset_one": {"artifactNames": ["1"]},
            "dataset_two": {"artifactNames": ["2"]},
        },
        "inputParameterValues": {"message": "Some string value", "num_steps": 5},
        "outputArtifactsSpec": {
            "model": {"name": "model", "type": {"instanceSchema": _DATASET}, "metadata": {"name": "model"}},
            "metrics": {"name": "metrics", "type": {"schemaTitle": "kfp.Metrics"}, "metadata": {"name": "metrics"}},
        },
        "outputParametersSpec": {"output_parameter_one": "STRING", "output_parameter_two": "INT"},
        "containerSpec": {"image": "python:3.9", "cmdArgs": ["sh", "ec", "test"]},
    }
    assert fingerprint(key) == "4e8a5d7d70997b0a35429fcd481af8fcd5b9f58ef4391bdb6ad900fd1c63622b"


def test_a_key_without_inputs_is_the_one_that_kubeflow_pipelines_computes() -> None:
    key = {
        "inputArtifactNames": {"dataset": {"artifactNames": ["10"]}},
        "outputParametersSpec": {"output_parameter": "DOUBLE"},
        "containerSpec": {"image": "python:3.9", "cmdArgs": ["sh", "ec", "run"]},
    }
    assert fingerprint(key) == "0a4cc1f15cdfad5170e1358518f7128c5278500a670db1b9a3f3d83b93db396e"
