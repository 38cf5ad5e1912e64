"""One spelling for GPU names and one number for their memory, over all vendors' habits.

``gpu_type("NVIDIA GeForce RTX 4090")`` and ``gpu_type("RTX_4090")`` are both ``RTX 4090``. The bus (PCIe, SXM)
is dropped, as it says nothing about what fits into the memory; ``NVL`` stays, as those boards carry another
amount of it. The vendor's own spelling is kept beside the result by everybody who stores it.
"""

from __future__ import annotations

import re

_MAX_NAME = 100

_PREFIX = re.compile(r"^(?:nvidia|amd|tesla|instinct|geforce(?=\s*[a-z]))[\s-]*(?=\S)", re.IGNORECASE)
_MEMORY_SUFFIX = re.compile(r"(?<=\S)[\s-]+(?:\d{1,3}\s?gi?b|hbm\d\w?)$", re.IGNORECASE)
_BUS_SUFFIX = re.compile(r"(?<=\S)[\s-]+(?:pcie|sxm\d?|nvlink)$", re.IGNORECASE)
_WORDS_THAT_SAY_NOTHING = re.compile(r"(?<=\S)\s+(?:generation|blackwell)\b", re.IGNORECASE)
_GLUED = re.compile(r"^(rtx|gtx)\s?(pro(?=\s?\d)\s?)?(?=a?\d)", re.IGNORECASE)
_QUADRO = re.compile(r"^q rtx\b", re.IGNORECASE)
_ADA = re.compile(r"(?<=\d)\s?ada\b", re.IGNORECASE)
_TI_SUPER = re.compile(r"(?<=\d)\s?ti\s?super\b", re.IGNORECASE)
_SUPER = re.compile(r"(?<=\d)\s?super\b", re.IGNORECASE)
_TI = re.compile(r"(?<=\d)(s?)\s?ti\b", re.IGNORECASE)
_EDITIONS = (
    (re.compile(r"\s+max-q workstation edition$", re.IGNORECASE), " Max-Q"),
    (re.compile(r"\s+workstation edition$", re.IGNORECASE), " WS"),
    (re.compile(r"\s+server edition$", re.IGNORECASE), " S"),
)
#: Model words such as H100, L40S, A10G: a letter or two, digits, perhaps a letter.
_MODEL_WORD = re.compile(r"\b(?:[a-z]{1,2}\d{1,4}[a-z]?)\b", re.IGNORECASE)
_NVL = re.compile(r"(?<=\d) nvl$", re.IGNORECASE)

#: Memory sizes in GB that boards are sold with.
_NOMINAL_GB = (
    *(1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 22, 24, 32, 40, 48, 64, 72, 80),
    *(94, 96, 128, 141, 144, 180, 192, 256, 288),
)
#: Boards sold with one amount only, whatever the driver leaves of it (ECC takes up to a sixteenth).
#: B200: 180 GB is what eight of them add up to in the maker's own systems (1,440 GB); the 192 GB that
#: was announced at first can never be allocated, so nobody should be promised it.
_ONE_SIZE_GB = {"t4": 16, "l4": 24, "a10": 24, "a10g": 24, "a40": 48, "l40": 48, "l40s": 48, "rtxa6000": 48}
_ONE_SIZE_GB |= {"h100nvl": 94, "h200": 141, "h200nvl": 141, "b200": 180}


def gpu_type(raw: str) -> str:
    """The normalised name. Applying it twice changes nothing; an unknown name keeps its words."""
    name = " ".join(raw[:_MAX_NAME].replace("_", " ").split())
    while (step := _one_step(name)) != name:
        name = step
    return name


def _one_step(name: str) -> str:
    name = _PREFIX.sub("", name)
    name = _MEMORY_SUFFIX.sub("", name)
    name = _BUS_SUFFIX.sub("", name)
    name = _WORDS_THAT_SAY_NOTHING.sub("", name)
    for pattern, short in _EDITIONS:
        name = pattern.sub(short, name)
    name = _QUADRO.sub("Quadro RTX", name)
    name = _GLUED.sub(lambda m: f"{m[1].upper()} {'PRO ' if m[2] else ''}", name)
    name = _ADA.sub(" Ada", name)
    name = _TI_SUPER.sub("S Ti", name)
    name = _SUPER.sub("S", name)
    name = _TI.sub(lambda m: f"{m[1].upper()} Ti", name)
    name = _NVL.sub(" NVL", name)
    return _MODEL_WORD.sub(lambda m: m[0].upper(), name)


def gpu_key(name: str) -> str:
    """What two spellings of the same GPU have in common: ``rtx4090`` for ``RTX 4090`` and ``NVIDIA RTX_4090``."""
    return re.sub(r"[\s_-]+", "", gpu_type(name)).casefold()


def vram_gb(vram_mb: float, raw_name: str = "") -> int:
    """Memory per GPU as it is advertised, from the MB that a vendor's driver reports.

    Drivers report a little less than is sold (24564 for 24 GB; 46068 for 48 GB with ECC on), so the answer is the
    next size up that boards are really sold with. A name settles it where the size alone could not. A number
    near no known size is just rounded; nothing or nonsense is 0.
    """
    if not 0 < vram_mb < 10_000_000:
        return 0
    gib = vram_mb / 1024
    sold_as = _ONE_SIZE_GB.get(gpu_key(raw_name)) if raw_name else None
    if sold_as is not None and 0.85 * sold_as <= gib <= 1.1 * sold_as:
        return sold_as
    for size in _NOMINAL_GB:
        if gib <= size * 1.005:
            return size if gib >= 0.9 * size else round(gib)
    return round(gib)
