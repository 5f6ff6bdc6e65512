"""The `publish` step: from a promoted model to a version in the Vertex Model Registry.

A version is recognised by the digest of its SavedModel: the step can be repeated, after a failure or a preemption,
without a second version of the same model.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.ncf.errors import InputError
from components.ncf.manifest import file_digest, read_manifest, write_manifest, writing_artifact
from components.publish.config import PublishConfig
from components.publish.registry import Registry, Version

_LOG = logging.getLogger(__name__)
_NUM_DIGEST_DIGITS = 32
_MAX_LABEL = 63
_DESCRIPTION = "NeuMF recommender"


@dataclass(frozen=True)
class Sources:
    """What is published.

    Attributes:
        model: The `model` folder.
        model_uri: The same where the registry can read it, if that is a gs:// address.
        evaluation: The `evaluation` folder.
        decision: The `decision` folder.
    """

    model: Path
    model_uri: str
    evaluation: Path
    decision: Path


def publish(config: PublishConfig, sources: Sources, schema: Path, schema_uri: str, output: Path) -> dict[str, Any]:
    """Registers the model, imports its evaluation, and only then moves the aliases to it.

    Args:
        config: The parameters.
        sources: What to publish.
        schema: The file to write what the metrics are to.
        schema_uri: The same where the registry can read it; metrics are imported if that is a gs:// address.
        output: The `publication` folder to write: publication.json, manifest.json.

    Returns:
        What publication.json holds.

    Raises:
        InputError: The gate rejected the model, an artifact is incomplete, or the registry refused.
    """
    _check_promoted(sources.decision)
    model_manifest = read_manifest(sources.model, "model")
    evaluation_manifest = read_manifest(sources.evaluation, "evaluation")
    _check_same_data(model_manifest, evaluation_manifest, sources)
    metrics = json.loads((sources.evaluation / "metrics.json").read_text(encoding="utf-8"))
    digest = _digest(sources.model / "saved_model")
    labels = make_labels(evaluation_manifest, metrics, digest)
    with writing_artifact(output) as partial:
        schema.parent.mkdir(parents=True, exist_ok=True)
        schema.write_text(metrics_schema(metrics), encoding="utf-8")
        registry = Registry(config)
        version = registry.find(digest) or registry.upload(_artifact_uri(config, sources), digest, labels, _DESCRIPTION)
        evaluations = _import_evaluations(registry, version, metrics, schema_uri)
        registry.move_aliases(version, config.aliases)
        content = _describe(config, version, labels, evaluations)
        (partial / "publication.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        write_manifest(partial, "publication", {name: content[name] for name in ("model", "version", "aliases")})
    _LOG.info("%s version %s is %s", version.model, version.version_id, ", ".join(config.aliases) or "without an alias")
    return content


def make_labels(evaluation: Mapping[str, Any], metrics: Mapping[str, Any], digest: str) -> dict[str, str]:
    """Returns the labels of a version: figures and digests in the few characters that labels may have.

    Args:
        evaluation: The manifest of the `evaluation` folder.
        metrics: Its metrics by protocol.
        digest: The SavedModel's.
    """
    protocol = next(iter(metrics))
    return {
        "data_digest": _label(evaluation["examples_digest"].removeprefix("sha256:")[:_NUM_DIGEST_DIGITS]),
        "model_digest": _label(digest),
        "dataset": _label(evaluation["dataset"]),
        "protocol": _label(protocol),
        "hr_at_10": _label(f"{metrics[protocol]['hr@10']:.4f}".replace(".", "_")),
    }


def metrics_schema(metrics: Mapping[str, Any]) -> str:
    """Returns what the imported metrics are, as the YAML of an OpenAPI schema object.

    Args:
        metrics: By protocol; every protocol has the same ones.
    """
    names = sorted({name for values in metrics.values() for name in _figures(values)})
    properties = "".join(f"  {json.dumps(name)}: {{type: number, format: double}}\n" for name in names)
    return f"title: RankingMetrics\ntype: object\nproperties:\n{properties}"


def _figures(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns a protocol's figures, those of the other systems as "popularity/hr@10"."""
    figures = {name: value for name, value in values.items() if _is_figure(value)}
    for system, others in values.items():
        if isinstance(others, dict):
            figures |= {f"{system}/{name}": value for name, value in others.items() if _is_figure(value)}
    return figures


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _import_evaluations(
    registry: Registry, version: Version, metrics: Mapping[str, Any], schema_uri: str
) -> dict[str, str]:
    """Imports one evaluation for each protocol, as figures of two protocols are never compared."""
    if not schema_uri.startswith("gs://"):
        _LOG.warning("The metrics are not imported: their schema, %s, is in no gs:// bucket", schema_uri)
        return {}
    return {
        protocol: registry.import_evaluation(version, protocol, _figures(values), schema_uri)
        for protocol, values in metrics.items()
    }


def _check_promoted(decision: Path) -> None:
    read_manifest(decision, "decision")
    content = json.loads((decision / "decision.json").read_text(encoding="utf-8"))
    if content["promoted"] is not True:
        raise InputError(f"The gate did not promote this model ({content['reason']}): it is not published.")


def _check_same_data(model: Mapping[str, Any], evaluation: Mapping[str, Any], sources: Sources) -> None:
    if model["examples_digest"] != evaluation["examples_digest"]:
        raise InputError(
            f"{sources.evaluation} evaluates a model of other examples than {sources.model}: evaluate this model."
        )


def _artifact_uri(config: PublishConfig, sources: Sources) -> str:
    if sources.model_uri.startswith("gs://"):
        return f"{sources.model_uri.rstrip('/')}/saved_model"
    if not config.staging_bucket:
        raise InputError(
            f"The registry cannot read {sources.model_uri}: set publish.staging_bucket to a gs:// folder to copy the "
            "SavedModel to."
        )
    return str(sources.model / "saved_model")


def _digest(saved_model: Path) -> str:
    """Returns a digest of all files, their names included."""
    files = sorted(path for path in saved_model.rglob("*") if path.is_file())
    if not files:
        raise InputError(f"{saved_model} holds no SavedModel: run train again.")
    lines = "".join(f"{file_digest(path)}  {path.relative_to(saved_model).as_posix()}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:_NUM_DIGEST_DIGITS]


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:_MAX_LABEL]


def _describe(
    config: PublishConfig, version: Version, labels: Mapping[str, str], evaluations: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.version_id,
        "aliases": list(config.aliases),
        "labels": dict(labels),
        "serving_image": config.serving_image,
        "evaluations": dict(evaluations),
    }
