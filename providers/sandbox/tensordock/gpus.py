"""GPU models by the names of the vendor's inventory (TensorDock contract, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """``shown``: the display name, which is a marketing name or just the ``v0Name`` again (section 4.1)."""

    v0: str
    shown: str
    driver_name: str
    memory_mb: int
    compute_cap: int
    #: What a host has of these per GPU: virtual CPUs, GB of memory.
    vcpus: int
    ram_gb: float


def _all(*rows: tuple[str, str, str, int, int, int, float]) -> Mapping[str, Model]:
    return {row[0]: Model(*row) for row in rows}


MODELS = _all(
    ("h100-sxm5-80gb", "H100 SXM5 80GB", "NVIDIA H100 80GB HBM3", 81559, 900, 26, 220.0),
    ("h100-pcie-80gb", "NVIDIA H100 PCIe 80GB", "NVIDIA H100 PCIe", 81559, 900, 24, 180.0),
    ("a100-sxm4-80gb", "NVIDIA A100 SXM4 80GB", "NVIDIA A100-SXM4-80GB", 81920, 800, 28, 220.0),
    ("a100-pcie-80gb", "NVIDIA A100 PCIe 80GB", "NVIDIA A100 80GB PCIe", 81920, 800, 24, 118.5),
    ("a100-pcie-40gb", "a100-pcie-40gb", "NVIDIA A100-PCIE-40GB", 40960, 800, 16, 96.0),
    ("l40s-pcie-48gb", "NVIDIA L40S PCIe 48GB", "NVIDIA L40S", 46068, 890, 16, 94.25),
    ("l40-pcie-48gb", "NVIDIA L40 PCIe 48GB", "NVIDIA L40", 46068, 890, 16, 92.0),
    ("l4-pcie-24gb", "NVIDIA L4 PCIe 24GB", "NVIDIA L4", 23034, 890, 12, 46.5),
    ("a40-pcie-48gb", "a40-pcie-48gb", "NVIDIA A40", 46068, 860, 12, 62.0),
    ("v100-sxm2-16gb", "NVIDIA Tesla V100 SXM2 16GB", "Tesla V100-SXM2-16GB", 16384, 700, 10, 60.0),
    ("rtx6000ada-pcie-48gb", "NVIDIA RTX 6000 Ada PCIe 48GB", "NVIDIA RTX 6000 Ada Generation", 49140, 890, 16, 92.0),
    ("rtx5000ada-pcie-32gb", "NVIDIA RTX 5000 Ada PCIe 32GB", "NVIDIA RTX 5000 Ada Generation", 32760, 890, 12, 60.0),
    ("rtxa6000-pcie-48gb", "NVIDIA RTX A6000 PCIe 48GB", "NVIDIA RTX A6000", 49140, 860, 14, 92.0),
    ("rtxa5000-pcie-24gb", "NVIDIA RTX A5000 PCIe 24GB", "NVIDIA RTX A5000", 24564, 860, 10, 46.0),
    ("rtxa4000-pcie-16gb", "NVIDIA RTX A4000 PCIe 16GB", "NVIDIA RTX A4000", 16376, 860, 8, 32.0),
    ("geforcertx5090-pcie-32gb", "geforcertx5090-pcie-32gb", "NVIDIA GeForce RTX 5090", 32607, 1200, 16, 92.5),
    ("geforcertx4090-pcie-24gb", "NVIDIA GeForce RTX 4090 PCIe 24GB", "NVIDIA GeForce RTX 4090", 24564, 890, 14, 82.75),
    ("geforcertx3090-pcie-24gb", "NVIDIA GeForce RTX 3090 PCIe 24GB", "NVIDIA GeForce RTX 3090", 24576, 860, 10, 46.0),
)
