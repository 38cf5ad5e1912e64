import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.gpus import gpu_key, gpu_type, vram_gb


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("RTX_4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("  rtx   4090 ", "RTX 4090"),
        ("geforcertx4090-pcie-24gb", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 PCIe 24GB", "RTX 4090"),
        ("RTX 4090D", "RTX 4090D"),
        ("A100 SXM4", "A100"),
        ("A100 SXM", "A100"),
        ("A100 PCIE", "A100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("a100-nvlink-40gb", "A100"),
        ("A100X", "A100X"),
        ("H100 SXM", "H100"),
        ("H100 PCIE", "H100"),
        ("h100-sxm5-80gb", "H100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("H100 NVL", "H100 NVL"),
        ("h100 nvl", "H100 NVL"),
        ("H200 NVL", "H200 NVL"),
        ("GH200 SXM", "GH200"),
        ("Tesla V100", "V100"),
        ("Tesla T4", "T4"),
        ("v100-sxm2-16gb", "V100"),
        ("l40s", "L40S"),
        ("RTX A6000", "RTX A6000"),
        ("rtxa6000-pcie-48gb", "RTX A6000"),
        ("RTX 6000Ada", "RTX 6000 Ada"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("rtx6000ada-pcie-48gb", "RTX 6000 Ada"),
        ("RTX 4070S Ti", "RTX 4070S Ti"),
        ("RTX 4070 Ti SUPER", "RTX 4070S Ti"),
        ("RTX 4070 Super", "RTX 4070S"),
        ("RTX 2080 Ti", "RTX 2080 Ti"),
        ("rtx2080ti", "RTX 2080 Ti"),
        ("RTX PRO 6000 WS", "RTX PRO 6000 WS"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 WS"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Max-Q"),
        ("Q RTX 8000", "Quadro RTX 8000"),
        ("GeForce 970", "GeForce 970"),
        ("InstinctMI250X", "MI250X"),
        ("Titan RTX", "Titan RTX"),
        ("P104-100", "P104-100"),
        ("RTX 3060 laptop", "RTX 3060 laptop"),
        ("NVIDIA", "NVIDIA"),
        ("", ""),
    ],
)
def test_names(raw: str, name: str) -> None:
    assert gpu_type(raw) == name


@pytest.mark.parametrize("spelling", ["rtx4090", "RTX 4090", "RTX_4090", "rtx-4090", "NVIDIA GeForce RTX 4090"])
def test_one_key_for_all_spellings(spelling: str) -> None:
    assert gpu_key(spelling) == "rtx4090"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("H100", "H100 NVL"),
        ("RTX 4090", "RTX 4090D"),
        ("RTX 6000 Ada", "RTX A6000"),
        ("L40", "L40S"),
        ("RTX 4070", "RTX 4070 Ti"),
    ],
)
def test_different_boards_have_different_keys(one: str, other: str) -> None:
    assert gpu_key(one) != gpu_key(other)


words = st.sampled_from(
    [
        "NVIDIA",
        "GeForce",
        "Tesla",
        "RTX",
        "GTX",
        "A100",
        "H100",
        "4090",
        "6000Ada",
        "4070S",
        "Ti",
        "SUPER",
        "SXM4",
        "PCIE",
        "NVL",
        "80GB",
        "24gb",
        "rtx4090",
        "Q",
        "Quadro",
        "-",
        "_",
        "laptop",
    ]
)
ascii_names = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40),
    st.lists(words, max_size=6).map(" ".join),
    st.lists(words, max_size=4).map("-".join),
)


@given(st.one_of(st.text(max_size=200), ascii_names))
def test_normalising_twice_changes_nothing(raw: str) -> None:
    once = gpu_type(raw)
    assert gpu_type(once) == once
    assert gpu_key(once) == gpu_key(raw)


@given(ascii_names)
def test_keys_ignore_case(raw: str) -> None:
    assert gpu_key(raw.upper()) == gpu_key(raw.lower())


@pytest.mark.parametrize(
    ("mb", "raw", "gb"),
    [
        (24564, "RTX 4090", 24),
        (23028, "L4", 24),
        (22731, "A10", 24),
        (22528, "RTX 2080 Ti", 22),
        (81559, "H100 SXM", 80),
        (81920, "A100 SXM4", 80),
        (40960, "A100 PCIE", 40),
        (40536, "A100 PCIE", 40),
        (46068, "L40S", 48),
        (49140, "RTX A6000", 48),
        (15360, "Tesla T4", 16),
        (16160, "Tesla V100", 16),
        (32510, "Tesla V100", 32),
        (11264, "RTX 2080 Ti", 11),
        (11019, "RTX 2080 Ti", 11),
        (11441, "Tesla K80", 12),
        (12288, "RTX 3060", 12),
        (10240, "RTX 3080", 10),
        (20475, "RTX A4500", 20),
        (8192, "RTX 3070", 8),
        (6144, "GTX 1660", 6),
        (32607, "RTX 5090", 32),
        (97887, "RTX PRO 6000 WS", 96),
        (95830, "H100 NVL", 94),
        (143771, "H200", 141),
        (183359, "B200", 180),
        (196592, "InstinctMI300X", 192),
        (51200, "", 50),
        (0, "RTX 4090", 0),
        (-5, "RTX 4090", 0),
        (1e12, "RTX 4090", 0),
        (float("nan"), "RTX 4090", 0),
    ],
)
def test_memory_as_sold(mb: float, raw: str, gb: int) -> None:
    assert vram_gb(mb, raw) == gb
    assert vram_gb(mb) == gb


@given(st.floats(1024, 400_000))
def test_memory_is_near_what_is_reported(mb: float) -> None:
    assert 0.94 * mb / 1024 - 0.5 <= vram_gb(mb) <= mb / 1024 / 0.9 + 0.5


@given(st.floats(1024, 400_000), st.floats(1024, 400_000))
def test_more_memory_is_never_less(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert vram_gb(low) <= vram_gb(high)


@given(st.integers(8, 300))
def test_a_whole_size_is_hardly_understated(gb: int) -> None:
    assert vram_gb(gb * 1024) >= 0.99 * gb
