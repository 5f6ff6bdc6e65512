"""The KFP interface of the gate step."""

from kfp import dsl

from components.images import image_uri


@dsl.component(base_image=image_uri("download"), install_kfp_package=False)
def gate(
    evaluation: dsl.Input[dsl.Artifact],
    protocol: str,
    metric: str,
    margin: float,
    min_value: float,
    must_beat: list[str],
    num_bootstrap_samples: int,
    confidence: float,
    seed: int,
    decision: dsl.Output[dsl.Artifact],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """Decides whether the model is promoted.

    Args:
        evaluation: What evaluate wrote.
        protocol: The protocol that decides; empty for the first one that was evaluated.
        metric: "hr@K", "recall@K", "ndcg@K" or "mrr".
        margin: By how much more than this the model has to beat the champion.
        min_value: What the model's metric has to be at least.
        must_beat: Systems that the model has to beat: "popularity", "als".
        num_bootstrap_samples: Resamplings of the users behind each interval.
        confidence: What share of resamples an interval covers.
        seed: Of the resampling.
        decision: decision.json (promoted, reason, checks), decision.md, manifest.json.
        summary: The same as a table.

    Returns:
        "promoted" or "rejected". Unnamed, because kfp's local runner resolves no named output in a condition.
    """
    from pathlib import Path

    from components.gate.config import GateConfig
    from components.gate.gate import gate as run
    from components.ncf.step import running_step

    with running_step("gate"):
        config = GateConfig(
            protocol=protocol,
            metric=metric,
            margin=margin,
            min_value=min_value,
            must_beat=tuple(must_beat),
            num_bootstrap_samples=num_bootstrap_samples,
            confidence=confidence,
            seed=seed,
        )
        promoted = run(config, Path(evaluation.path), Path(decision.path)).promoted
        Path(summary.path).write_bytes((Path(decision.path) / "decision.md").read_bytes())
    return "promoted" if promoted else "rejected"
