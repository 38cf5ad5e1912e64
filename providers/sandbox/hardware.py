"""GPU models as the marketplaces name them, with what their driver and their owners say about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuModel:
    """``name`` as in an offer row, ``driver_name`` as nvidia-smi prints it, ``memory_mb`` as the driver reports it."""

    name: str
    driver_name: str
    memory_mb: int
    compute_cap: int
    #: Dollars per GPU and hour, from cheap to dear.
    price_low: float
    price_high: float
    tflops: float
    dlperf: float
    bandwidth_gbs: float
    watts: int
    #: How often it is seen, and in which machine sizes.
    weight: int
    sizes: tuple[int, ...]
    datacenter: bool = False


_HOME = (1, 1, 1, 2, 2, 4)
_RACK = (1, 2, 4, 4, 8, 8)
_HGX = (1, 2, 4, 8, 8, 8)


def _g(
    name: str,
    driver_name: str,
    memory_mb: int,
    cap: int,
    price: tuple[float, float],
    speed: tuple[float, float, float],
    watts: int,
    weight: int,
    sizes: tuple[int, ...],
    datacenter: bool = False,
) -> GpuModel:
    return GpuModel(name, driver_name, memory_mb, cap, *price, *speed, watts, weight, sizes, datacenter)


MODELS: tuple[GpuModel, ...] = (
    _g("RTX 4090", "NVIDIA GeForce RTX 4090", 24564, 890, (0.28, 0.62), (81.0, 97.0, 1008.0), 450, 30, _RACK),
    _g("RTX 3090", "NVIDIA GeForce RTX 3090", 24576, 860, (0.11, 0.28), (35.3, 44.0, 936.0), 350, 22, _RACK),
    _g("RTX 5090", "NVIDIA GeForce RTX 5090", 32607, 1200, (0.36, 0.88), (104.8, 178.0, 1792.0), 575, 18, _RACK),
    _g("RTX 3060", "NVIDIA GeForce RTX 3060", 12288, 860, (0.045, 0.10), (12.7, 13.2, 360.0), 170, 9, _HOME),
    _g("RTX 3070", "NVIDIA GeForce RTX 3070", 8192, 860, (0.05, 0.11), (20.3, 19.6, 448.0), 220, 5, _HOME),
    _g("RTX 3080", "NVIDIA GeForce RTX 3080", 10240, 860, (0.07, 0.15), (29.8, 30.6, 760.0), 320, 6, _HOME),
    _g("RTX 3090 Ti", "NVIDIA GeForce RTX 3090 Ti", 24564, 860, (0.14, 0.31), (40.0, 49.0, 1008.0), 450, 4, _HOME),
    _g("RTX 4070", "NVIDIA GeForce RTX 4070", 12282, 890, (0.09, 0.17), (29.1, 34.0, 504.0), 200, 4, _HOME),
    _g("RTX 4070S", "NVIDIA GeForce RTX 4070 SUPER", 12282, 890, (0.10, 0.19), (35.5, 41.0, 504.0), 220, 4, _HOME),
    _g(
        "RTX 4070S Ti", "NVIDIA GeForce RTX 4070 Ti SUPER", 16376, 890, (0.12, 0.24), (44.1, 52.0, 672.0), 285, 4, _HOME
    ),
    _g("RTX 4080", "NVIDIA GeForce RTX 4080", 16376, 890, (0.16, 0.32), (48.7, 58.0, 716.0), 320, 5, _HOME),
    _g("RTX 4090D", "NVIDIA GeForce RTX 4090 D", 24564, 890, (0.26, 0.48), (73.5, 86.0, 1008.0), 425, 3, _RACK),
    _g("RTX 5070 Ti", "NVIDIA GeForce RTX 5070 Ti", 16303, 1200, (0.14, 0.26), (43.9, 77.0, 896.0), 300, 5, _HOME),
    _g("RTX 5080", "NVIDIA GeForce RTX 5080", 16303, 1200, (0.17, 0.36), (56.3, 98.0, 960.0), 360, 5, _HOME),
    _g("RTX 2080 Ti", "NVIDIA GeForce RTX 2080 Ti", 11264, 750, (0.07, 0.14), (13.4, 18.0, 616.0), 250, 3, _HOME),
    _g("GTX 1080 Ti", "NVIDIA GeForce GTX 1080 Ti", 11264, 610, (0.05, 0.09), (11.3, 7.0, 484.0), 250, 2, _HOME),
    _g("RTX A4000", "NVIDIA RTX A4000", 16376, 860, (0.08, 0.19), (19.2, 22.0, 448.0), 140, 5, _RACK),
    _g("RTX A5000", "NVIDIA RTX A5000", 24564, 860, (0.15, 0.33), (27.8, 33.0, 768.0), 230, 5, _RACK),
    _g("RTX A6000", "NVIDIA RTX A6000", 49140, 860, (0.36, 0.74), (38.7, 47.0, 768.0), 300, 7, _RACK),
    _g("RTX 6000Ada", "NVIDIA RTX 6000 Ada Generation", 49140, 890, (0.52, 0.98), (91.1, 99.0, 960.0), 300, 6, _RACK),
    _g(
        "RTX PRO 6000 WS",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
        97887,
        1200,
        (0.88, 1.55),
        (125.0, 205.0, 1792.0),
        600,
        5,
        _RACK,
    ),
    _g("Q RTX 8000", "Quadro RTX 8000", 49152, 750, (0.24, 0.42), (16.3, 22.0, 672.0), 260, 2, _HOME),
    _g("Titan RTX", "NVIDIA TITAN RTX", 24576, 750, (0.17, 0.29), (16.3, 21.0, 672.0), 280, 1, _HOME),
    _g("Tesla T4", "Tesla T4", 15360, 750, (0.10, 0.22), (8.1, 10.5, 320.0), 70, 4, _RACK, True),
    _g("Tesla V100", "Tesla V100-SXM2-32GB", 32768, 700, (0.18, 0.46), (15.7, 27.0, 900.0), 300, 5, _HGX, True),
    _g("L4", "NVIDIA L4", 23034, 890, (0.27, 0.52), (30.3, 31.0, 300.0), 72, 5, _RACK, True),
    _g("A40", "NVIDIA A40", 46068, 860, (0.33, 0.58), (37.4, 44.0, 696.0), 300, 5, _RACK, True),
    _g("L40", "NVIDIA L40", 46068, 890, (0.55, 0.92), (90.5, 92.0, 864.0), 300, 3, _RACK, True),
    _g("L40S", "NVIDIA L40S", 46068, 890, (0.57, 1.08), (91.6, 102.0, 864.0), 350, 8, _RACK, True),
    _g("A100 PCIE", "NVIDIA A100-PCIE-40GB", 40960, 800, (0.52, 0.92), (19.5, 63.0, 1555.0), 250, 5, _RACK, True),
    _g("A100 PCIE", "NVIDIA A100 80GB PCIe", 81920, 800, (0.72, 1.25), (19.5, 68.0, 1935.0), 300, 5, _RACK, True),
    _g("A100 SXM4", "NVIDIA A100-SXM4-40GB", 40960, 800, (0.56, 0.98), (19.5, 69.0, 1555.0), 400, 4, _HGX, True),
    _g("A100 SXM4", "NVIDIA A100-SXM4-80GB", 81920, 800, (0.78, 1.42), (19.5, 74.0, 2039.0), 400, 8, _HGX, True),
    _g("H100 PCIE", "NVIDIA H100 PCIe", 81559, 900, (1.45, 2.25), (51.2, 124.0, 2039.0), 350, 5, _RACK, True),
    _g("H100 SXM", "NVIDIA H100 80GB HBM3", 81559, 900, (1.55, 2.65), (66.9, 162.0, 3350.0), 700, 9, _HGX, True),
    _g("H100 NVL", "NVIDIA H100 NVL", 95830, 900, (1.62, 2.55), (60.3, 151.0, 3938.0), 400, 4, _RACK, True),
    _g("H200", "NVIDIA H200", 143771, 900, (2.05, 3.45), (66.9, 178.0, 4800.0), 700, 5, _HGX, True),
    _g("H200 NVL", "NVIDIA H200 NVL", 143771, 900, (2.00, 3.10), (60.3, 168.0, 4800.0), 600, 2, _RACK, True),
    _g("GH200 SXM", "NVIDIA GH200 480GB", 97871, 900, (1.55, 2.30), (66.9, 165.0, 4000.0), 900, 1, (1,), True),
    _g("B200", "NVIDIA B200", 183359, 1000, (3.10, 5.60), (80.0, 320.0, 8000.0), 1000, 3, _HGX, True),
)

#: driver version, and the highest CUDA that it serves
DRIVERS: tuple[tuple[str, float], ...] = (
    ("535.183.01", 12.2),
    ("545.29.06", 12.3),
    ("550.54.15", 12.4),
    ("550.127.05", 12.4),
    ("555.58.02", 12.5),
    ("560.35.03", 12.6),
    ("565.57.01", 12.7),
    ("570.86.15", 12.8),
    ("570.133.20", 12.8),
    ("575.57.08", 12.9),
    ("580.65.06", 13.0),
)

CPUS: tuple[tuple[str, int, float], ...] = (
    ("AMD EPYC 7742 64-Core Processor", 128, 2.25),
    ("AMD EPYC 7713 64-Core Processor", 128, 2.0),
    ("AMD EPYC 9354 32-Core Processor", 64, 3.25),
    ("AMD EPYC 9654 96-Core Processor", 192, 2.4),
    ("AMD EPYC 7542 32-Core Processor", 64, 2.9),
    ("AMD Ryzen 9 7950X 16-Core Processor", 32, 4.5),
    ("AMD Ryzen 9 5950X 16-Core Processor", 32, 3.4),
    ("AMD Ryzen Threadripper PRO 5975WX 32-Cores", 64, 3.6),
    ("Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz", 128, 2.0),
    ("Intel(R) Xeon(R) Platinum 8468", 192, 2.1),
    ("Xeon® E5-2698 v4", 80, 2.2),
    ("Core™ i9-13900K", 32, 3.0),
)

#: as written in an offer row; the country code follows the last comma
PLACES: tuple[str, ...] = (
    "California, US", "Texas, US", "Washington, US", "Oregon, US", "Utah, US", "Virginia, US", "New York, US",
    "Illinois, US", "Georgia, US", "Nevada, US", "North Carolina, US", ", US", "Quebec, CA", "Ontario, CA",
    "British Columbia, CA", "Mexico City, MX", "São Paulo, BR", "Buenos Aires, AR", "Santiago, CL", "Sweden, SE",
    "Stockholm, SE", "Norway, NO", "Finland, FI", "Reykjavik, IS", "United Kingdom, GB", "Ireland, IE", "France, FR",
    "Netherlands, NL", "Germany, DE", "Switzerland, CH", "Austria, AT", "Poland, PL", "Czechia, CZ", "Hungary, HU",
    "Romania, RO", "Bulgaria, BG", "Greece, GR", "Italy, IT", "Spain, ES", "Portugal, PT", "Estonia, EE",
    "Lithuania, LT", "Ukraine, UA", "Türkiye, TR", "Israel, IL", "United Arab Emirates, AE", "India, IN",
    "Singapore, SG", "Malaysia, MY", "Thailand, TH", "Vietnam, VN", "Hong Kong, HK", "Taiwan, TW", "South Korea, KR",
    "Japan, JP", "Australia, AU", "New Zealand, NZ", "South Africa, ZA", "Kenya, KE",
)  # fmt: skip

DISKS: tuple[str, ...] = (
    "Samsung SSD 990 PRO 2TB",
    "SAMSUNG MZQL27T6HBLA-00A07",
    "WD_BLACK SN850X 4000GB",
    "KINGSTON SNV2S2000G",
    "INTEL SSDPE2KX040T8",
    "Micron_7450_MTFDKCC7T6TFR",
    "nvme",
)

BOARDS: tuple[str, ...] = (
    "ROMED8-2T",
    "H12SSL-i",
    "X12DPG-OA6",
    "WRX80E-SAGE",
    "B650D4U",
    "ROME2D32GM-2T",
    "X570 Taichi",
)


def by_offer(name: str, memory_mb: float) -> GpuModel | None:
    """The model that an offer's name and memory mean."""
    return next((m for m in MODELS if m.name == name and m.memory_mb == int(memory_mb)), None)
