"""Which machines Vertex AI has for training, with which accelerators, and where: tables that age.

`CHECKED` is the day of which the tables of machines are. Where an accelerator exists stands in `ACCELERATORS`, beside
the list that says so (`REGION_SOURCES`, read on `REGIONS_CHECKED`). None of those lists is Vertex AI's own, which could
not be opened and may be shorter. What is not listed may exist: `neumf preflight` then warns, and names the page to look
it up in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

CHECKED = "2026-11-25"
_PAGES = "https://docs.cloud.google.com"
SOURCES = {
    "machines": f"{_PAGES}/vertex-ai/docs/training/configure-compute",
    "flex-start": f"{_PAGES}/vertex-ai/docs/training/schedule-jobs-dws",
    "tpu": f"{_PAGES}/tpu/docs/regions-zones",
    "regions": f"{_PAGES}/vertex-ai/docs/general/locations",
    "dataflow": f"{_PAGES}/dataflow/docs/resources/locations",
}
REGIONS_CHECKED = "2026-11-29"
_CATALOGUE = "github.com/skypilot-org/skypilot-catalog, catalogs/v7/gcp/vms.csv at commit 017e2502fb63"
# Whose list it is, and where it was read. The catalogue is made of Google's prices; its commit shows us no date.
REGION_SOURCES = {
    # The rows of g2-standard-12, a2-highgpu-1g, a2-ultragpu-1g, a3-highgpu-8g, a3-megagpu-8g and of the T4.
    "Compute Engine": _CATALOGUE,
    # v2, v3 and the v5e in America are as on undated copies of Google's page; v5e elsewhere was recalled. All of them
    # are in the catalogue. It has more, which those copies lack or do not show: v3 in us-east1, v5e in us-east1,
    # us-east5, europe-north1, europe-west1 and asia-east1.
    "Cloud TPU": f"{SOURCES['tpu']}, and tpu-v2-8, tpu-v3-8, tpu-v5litepod-1 of {_CATALOGUE}",
}

_N1_STANDARD = {4: (1, 2, 4), 8: (1, 2, 4), 16: (1, 2, 4), 32: (2, 4), 64: (4,), 96: (4,)}
_N1_HIGHMEM = {2: (1, 2, 4), 4: (1, 2, 4), 8: (1, 2, 4), 16: (1, 2, 4), 32: (2, 4), 64: (4,), 96: (4,)}
_N1_HIGHCPU = {16: (1, 2, 4), 32: (2, 4), 64: (4,), 96: (4,)}

# Counts of GPUs that a machine type takes, by GPU. Of N1, whose GPUs are attached by choice, the T4 alone is listed.
GPU_COUNTS: Mapping[tuple[str, str], tuple[int, ...]] = {
    **{(f"n1-standard-{size}", "NVIDIA_TESLA_T4"): counts for size, counts in _N1_STANDARD.items()},
    **{(f"n1-highmem-{size}", "NVIDIA_TESLA_T4"): counts for size, counts in _N1_HIGHMEM.items()},
    **{(f"n1-highcpu-{size}", "NVIDIA_TESLA_T4"): counts for size, counts in _N1_HIGHCPU.items()},
    **{(f"g2-standard-{size}", "NVIDIA_L4"): (1,) for size in (4, 8, 12, 16, 32)},
    ("g2-standard-24", "NVIDIA_L4"): (2,),
    ("g2-standard-48", "NVIDIA_L4"): (4,),
    ("g2-standard-96", "NVIDIA_L4"): (8,),
    **{(f"a2-highgpu-{count}g", "NVIDIA_TESLA_A100"): (count,) for count in (1, 2, 4, 8)},
    ("a2-megagpu-16g", "NVIDIA_TESLA_A100"): (16,),
    **{(f"a2-ultragpu-{count}g", "NVIDIA_A100_80GB"): (count,) for count in (1, 2, 4, 8)},
    **{(f"a3-highgpu-{count}g", "NVIDIA_H100_80GB"): (count,) for count in (1, 2, 4, 8)},
    ("a3-megagpu-8g", "NVIDIA_H100_MEGA_80GB"): (8,),
}
# Counts of cores of a TPU that one machine, and so this project's training, can drive.
TPU_CORES: Mapping[str, int] = {"TPU_V2": 8, "TPU_V3": 8}
# The topologies of a TPU v5e that are one machine. Larger ones are several, which one process cannot drive.
TPU_TOPOLOGIES: Mapping[str, str] = {
    "ct5lp-hightpu-1t": "1x1",
    "ct5lp-hightpu-4t": "2x2",
    "ct5lp-hightpu-8t": "2x4",
}
TPU_V5E = "TPU_V5_LITEPOD"
_SIZES = {
    "e2-standard": (4, 8, 16, 32),
    "e2-highmem": (2, 4, 8, 16),
    "e2-highcpu": (16, 32),
    "n1-standard": (4, 8, 16, 32, 64, 96),
    "n1-highmem": (2, 4, 8, 16, 32, 64, 96),
    "n1-highcpu": (16, 32, 64, 96),
    "n2-standard": (4, 8, 16, 32, 48, 64, 80),
    "n2-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
    "n2-highcpu": (16, 32, 48, 64, 80),
    "n4-standard": (2, 4, 8, 16, 32, 48, 64, 80),
    "n4-highmem": (2, 4, 8, 16, 32, 48, 64, 80),
    "n4-highcpu": (2, 4, 8, 16, 32, 48, 64, 80),
    "c2-standard": (4, 8, 16, 30, 60),
}
CPU_MACHINES = frozenset(f"{family}-{size}" for family, sizes in _SIZES.items() for size in sizes)
# GB of memory a virtual processor, and the families' kinds.
_GB_A_CPU = {"standard": 4.0, "highmem": 8.0, "highcpu": 1.0}
_GB_A_CPU_N1 = {"standard": 3.75, "highmem": 6.5, "highcpu": 0.9}

# GPUs that flex-start (Dynamic Workload Scheduler) finds; it takes no TPU, and all pools must have the same machines.
FLEX_START_GPUS = ("NVIDIA_L4", "NVIDIA_TESLA_A100", "NVIDIA_A100_80GB", "NVIDIA_H100_80GB", "NVIDIA_H100_MEGA_80GB")


@dataclass(frozen=True)
class Accelerator:
    """One kind of accelerator.

    Attributes:
        memory_gb: Of one GPU or one TPU core, as one replica of the model has it.
        regions: Where the source has it. A region that is missing is a reason to look it up, not an error.
        source: Whose list that is, a key of `REGION_SOURCES`.
        quota: Vertex AI's metric that limits it in training.
    """

    memory_gb: float
    regions: tuple[str, ...]
    source: str
    quota: str


ACCELERATORS: Mapping[str, Accelerator] = {
    "NVIDIA_TESLA_T4": Accelerator(
        16,
        ("us-central1", "us-east1", "us-east4", "us-west1", "us-west2", "us-west3", "us-west4",
         "northamerica-northeast1", "southamerica-east1",
         "europe-central2", "europe-west1", "europe-west2", "europe-west3", "europe-west4", "me-west1",
         "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast3", "asia-south1", "asia-southeast1",
         "asia-southeast2", "australia-southeast1"),
        "Compute Engine",
        "custom_model_training_nvidia_t4_gpus",
    ),
    "NVIDIA_L4": Accelerator(
        24,
        ("us-central1", "us-east1", "us-east4", "us-west1", "us-west4",
         "northamerica-northeast1", "northamerica-northeast2",
         "europe-west1", "europe-west2", "europe-west3", "europe-west4", "europe-west6", "me-central2",
         "asia-east1", "asia-northeast1", "asia-northeast3", "asia-south1", "asia-southeast1"),
        "Compute Engine",
        "custom_model_training_nvidia_l4_gpus",
    ),
    "NVIDIA_TESLA_A100": Accelerator(
        40,
        ("us-central1", "us-east1", "us-west1", "us-west3", "us-west4", "europe-west4", "me-west1",
         "asia-northeast1", "asia-northeast3", "asia-southeast1"),
        "Compute Engine",
        "custom_model_training_nvidia_a100_gpus",
    ),
    "NVIDIA_A100_80GB": Accelerator(
        80,
        ("us-central1", "us-east4", "us-east5", "europe-west4", "asia-southeast1"),
        "Compute Engine",
        "custom_model_training_nvidia_a100_80gb_gpus",
    ),
    "NVIDIA_H100_80GB": Accelerator(
        80,
        ("us-central1", "us-east4", "us-east5", "us-west1", "us-west4",
         "europe-north1", "europe-west1", "europe-west3", "europe-west4",
         "asia-east1", "asia-northeast1", "asia-south1", "asia-southeast1", "australia-southeast1"),
        "Compute Engine",
        "custom_model_training_nvidia_h100_gpus",
    ),
    "NVIDIA_H100_MEGA_80GB": Accelerator(
        80,
        ("us-central1", "us-east4", "us-east5", "us-west1", "us-west4",
         "europe-north1", "europe-west1", "europe-west3", "europe-west4",
         "asia-east1", "asia-northeast1", "asia-southeast1", "australia-southeast1"),
        "Compute Engine",
        "custom_model_training_nvidia_h100_mega_gpus",
    ),
    "TPU_V2": Accelerator(
        8, ("us-central1", "europe-west4", "asia-east1"), "Cloud TPU", "custom_model_training_tpu_v2"
    ),
    "TPU_V3": Accelerator(16, ("us-central1", "europe-west4"), "Cloud TPU", "custom_model_training_tpu_v3"),
    TPU_V5E: Accelerator(
        16,
        ("us-central1", "us-south1", "us-west1", "us-west4", "europe-west4", "asia-southeast1"),
        "Cloud TPU",
        "custom_model_training_tpu_v5e",
    ),
}  # fmt: skip

# Regions of Google Cloud, as recalled, all of which Vertex AI's client knows. A name that is missing here is looked up,
# not refused.
REGIONS = frozenset(
    (
        "us-central1", "us-east1", "us-east4", "us-east5", "us-south1", "us-west1", "us-west2", "us-west3", "us-west4",
        "northamerica-northeast1", "northamerica-northeast2", "southamerica-east1", "southamerica-west1",
        "europe-central2", "europe-north1", "europe-southwest1", "europe-west1", "europe-west2", "europe-west3",
        "europe-west4", "europe-west6", "europe-west8", "europe-west9", "europe-west12",
        "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3", "asia-south1",
        "asia-southeast1", "asia-southeast2", "australia-southeast1", "australia-southeast2",
        "me-central1", "me-central2", "me-west1", "africa-south1",
    )
)  # fmt: skip


def is_general_machine(machine_type: str) -> bool:
    """Whether a name is one that Compute Engine gives to machines without accelerators, of any size.

    Dataflow takes more of them than training does. Those that share a core, such as e2-micro, are left out.
    """
    family = "e2|n1|n2d?|n4|c2d?|c3d?|c4a?|t2[ad]"
    return re.fullmatch(rf"({family})-(standard|highmem|highcpu)-\d+", machine_type) is not None


def machine_memory_gb(machine_type: str) -> float | None:
    """Returns how much main memory a general machine type has; None for one that is not listed."""
    match = re.fullmatch(r"(\w\d)-(standard|highmem|highcpu)-(\d+)", machine_type)
    if match is None or machine_type not in CPU_MACHINES:
        return None
    family, kind, cpus = match.groups()
    return (_GB_A_CPU_N1 if family == "n1" else _GB_A_CPU)[kind] * int(cpus)
