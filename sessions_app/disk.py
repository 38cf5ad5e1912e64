"""How much disk a model needs: its weights, the image that serves it, and some room. Unknown model: no estimate.

``required = ceil(weights x 1.05 + image)``, in GB of 10^9 bytes; the weights are parameters x bytes per parameter.
With it DeepSeek-V2.5 (236 B parameters) at 4 bits comes to 236 x 0.5 = 118, + 5.9 + 8 = 132 GB.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

#: What the usual serving images take of the disk, unpacked beside the weights.
IMAGE_GB = Decimal(8)
#: Tokenizer, download cache, logs: a share of the weights, and at least this much.
OVERHEAD_SHARE = Decimal("0.05")
LEAST_OVERHEAD_GB = Decimal(2)

FULL, EIGHT_BIT, FOUR_BIT = Decimal(2), Decimal(1), Decimal("0.5")
#: Bytes per parameter **on disk**. bitsandbytes and its like shrink weights while loading: the disk holds them whole.
BYTES: dict[str, Decimal] = {
    "awq": FOUR_BIT, "awq_marlin": FOUR_BIT, "gptq": FOUR_BIT, "gptq_marlin": FOUR_BIT, "int4": FOUR_BIT,
    "4bit": FOUR_BIT, "4-bit": FOUR_BIT, "w4a16": FOUR_BIT, "nf4": FOUR_BIT, "fp4": FOUR_BIT, "mxfp4": FOUR_BIT,
    "nvfp4": FOUR_BIT, "marlin": FOUR_BIT, "squeezellm": FOUR_BIT,
    "int8": EIGHT_BIT, "fp8": EIGHT_BIT, "8bit": EIGHT_BIT, "8-bit": EIGHT_BIT, "w8a8": EIGHT_BIT, "w8a16": EIGHT_BIT,
    "fp16": FULL, "bf16": FULL, "half": FULL, "none": FULL, "bitsandbytes": FULL, "eetq": FULL,
    "fp32": Decimal(4), "float32": Decimal(4),
}  # fmt: skip
_BITS = {FOUR_BIT: "4-bit", EIGHT_BIT: "8-bit", FULL: "16-bit", Decimal(4): "32-bit"}

#: Billions of parameters of models whose names do not say it, or say it misleadingly (experts share layers).
KNOWN: dict[str, Decimal] = {
    "mixtral-8x7b": Decimal("46.7"), "mixtral-8x22b": Decimal("140.6"),
    "deepseek-v2.5": Decimal(236), "deepseek-v2-lite": Decimal("15.7"), "deepseek-v2": Decimal(236),
    "deepseek-coder-v2-lite": Decimal("15.7"), "deepseek-coder-v2": Decimal(236),
    "deepseek-v3": Decimal(671), "deepseek-r1": Decimal(671), "mistral-large": Decimal(123),
    "mistral-nemo": Decimal("12.2"), "mistral-small": Decimal(24), "command-r-plus": Decimal(104),
    "command-r": Decimal(35), "dbrx": Decimal(132), "grok-1": Decimal(314), "phi-3-mini": Decimal("3.8"),
    "phi-3.5-mini": Decimal("3.8"), "phi-3-medium": Decimal(14), "phi-3.5-moe": Decimal("41.9"),
    "phi-2": Decimal("2.7"), "phi-4": Decimal("14.7"), "kimi-k2": Decimal(1026), "gpt2-xl": Decimal("1.5"),
}  # fmt: skip

#: ``7b``, ``70B``, ``0.5B``, ``135M``, ``8x7b``; not the active share of ``30B-A3B``, not ``4bit``.
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)([bm])(?![a-z0-9])")
_WORD = re.compile(r"[a-z0-9]+(?:-bit)?")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a model needs on disk, in GB."""

    parameters_b: Decimal
    bytes_per_parameter: Decimal
    weights: Decimal
    overhead: Decimal

    @property
    def required_gb(self) -> int:
        return math.ceil(self.weights + self.overhead + IMAGE_GB)

    def shown(self) -> dict[str, Any]:
        """The breakdown as the API prints it; the parts add up to ``required_gb``, which is rounded up."""
        bits = _BITS[self.bytes_per_parameter]
        return {
            "weights_gb": _tenths(self.weights),
            "image_gb": _tenths(IMAGE_GB),
            "overhead_gb": _tenths(self.overhead),
            "required_gb": self.required_gb,
            "computed_as": (
                f"{_plain(self.parameters_b)} billion parameters x {_plain(self.bytes_per_parameter)} bytes ({bits}) "
                f"= {_plain(self.weights)} GB of weights, and room for the image and 5 % more (at least 2 GB)"
            ),
        }


def estimate(model_id: str, quantization: str = "") -> Estimate | None:
    """``None`` when the model's size cannot be told from its name."""
    parameters = parameters_b(model_id)
    if parameters is None:
        return None
    size = bytes_per_parameter(model_id, quantization)
    weights = parameters * size
    return Estimate(parameters, size, weights, max(weights * OVERHEAD_SHARE, LEAST_OVERHEAD_GB))


def parameters_b(model_id: str) -> Decimal | None:
    """Billions of parameters: a known model of shared experts, the size in the name, or a known name."""
    name = model_id.lower().rsplit("/", 1)[-1].replace("_", "-")
    sizes = list(_SIZE.finditer(name))
    if not sizes:
        return _known(name)
    if any(match[1] for match in sizes) and (known := _known(name)) is not None:
        return known
    return max(Decimal(match[1] or 1) * Decimal(match[2]) / (1000 if match[3] == "m" else 1) for match in sizes) or None


def _known(name: str) -> Decimal | None:
    """The longest known name that this one begins with or contains as whole words."""
    found = [known for known in KNOWN if re.search(rf"(?<![a-z0-9]){re.escape(known)}(?![a-z0-9.])", name)]
    return KNOWN[max(found, key=len)] if found else None


def bytes_per_parameter(model_id: str, quantization: str = "") -> Decimal:
    """By the quantization asked for; without one by the words of the name (``...-AWQ``); else 16 bits."""
    asked = quantization.strip().lower()
    if asked:
        return BYTES.get(asked, FULL)
    words = _WORD.findall(model_id.lower().rsplit("/", 1)[-1])
    return min((BYTES[word] for word in words if word in BYTES and BYTES[word] < FULL), default=FULL)


def _tenths(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.1"))


def _plain(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
