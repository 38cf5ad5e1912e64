"""How much disk a model needs: a table of names, properties of the arithmetic, and the refusals that follow."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock
from sessions_app import disk
from sessions_app.models import Rental, Session
from templates_app.models import Template
from tests.harness import Api
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess


@pytest.mark.parametrize(
    ("model_id", "billions"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "8"), ("mistralai/Mistral-7B-v0.3", "7"), ("Qwen/Qwen2.5-0.5B", "0.5"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "72"), ("llama-2-70b-chat-hf", "70"), ("HuggingFaceTB/SmolLM2-135M", "0.135"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "46.7"), ("mistralai/Mixtral-8x22B-v0.1", "140.6"),
        ("somebody/moe-8x7b", "56"), ("openai/gpt-oss-120b", "120"), ("Qwen/Qwen3-30B-A3B", "30"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "235"), ("deepseek-ai/DeepSeek-V2.5", "236"),
        ("deepseek-ai/DeepSeek-V2.5-1210", "236"), ("deepseek-v2.5-236b", "236"), ("deepseek-ai/DeepSeek-R1", "671"),
        ("deepseek-ai/DeepSeek-R1-0528", "671"), ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "70"),
        ("deepseek-ai/DeepSeek-V2-Lite-Chat", "15.7"), ("microsoft/Phi-3-mini-4k-instruct", "3.8"),
        ("google/gemma_2_9b_it", "9"), ("bigscience/bloom-560m", "0.56"), ("7b", "7"),
        ("CohereForAI/c4ai-command-r-plus", "104"),
    ],
)  # fmt: skip
def test_sizes(model_id: str, billions: str) -> None:
    assert disk.parameters_b(model_id) == Decimal(billions)


@pytest.mark.parametrize(
    "model_id",
    [
        "",
        "/",
        "my-own-model",
        "me/model-4bit",
        "llama-3",
        "v2.5",
        "abc7bdef",
        "clip-vit-l-14",
        "sha-1a2b3c",
        "0b",
        "70",
    ],
)
def test_unknown_models(model_id: str) -> None:
    assert disk.parameters_b(model_id) is None
    assert disk.estimate(model_id, "awq") is None


@pytest.mark.parametrize(
    ("model_id", "quantization", "size"),
    [
        ("x-7b", "", "2"), ("x-7b", "fp16", "2"), ("x-7b", "bf16", "2"), ("x-7b", "awq", "0.5"), ("x-7b", "AWQ", "0.5"),
        ("x-7b", "gptq", "0.5"), ("x-7b", "gptq_marlin", "0.5"), ("x-7b", "int4", "0.5"), ("x-7b", "int8", "1"),
        ("x-7b", "fp8", "1"), ("x-7b", "bitsandbytes", "2"), ("x-7b", "something", "2"), ("x-7b-AWQ", "", "0.5"),
        ("x-7b-GPTQ-Int4", "", "0.5"), ("x-7b-GPTQ-Int8", "", "0.5"), ("x-7b-FP8", "", "1"), ("x-7b-4bit", "", "0.5"),
        ("x-7b-bnb-4bit", "", "0.5"), ("x-7b-awq", "fp16", "2"), ("awq-team/x-7b", "", "2"),
    ],
)  # fmt: skip
def test_bytes_per_parameter(model_id: str, quantization: str, size: str) -> None:
    assert disk.bytes_per_parameter(model_id, quantization) == Decimal(size)


def test_the_seeds_example() -> None:
    """DeepSeek-V2.5 236B requires ~132GB: that is with 4-bit weights."""
    found = disk.estimate("deepseek-ai/DeepSeek-V2.5", "awq")
    assert found is not None
    assert found.shown() == {
        "weights_gb": Decimal("118.0"), "image_gb": Decimal("8.0"), "overhead_gb": Decimal("5.9"), "required_gb": 132,
        "computed_as": "236 billion parameters x 0.5 bytes (4-bit) = 118 GB of weights, "
        "and room for the image and 5 % more (at least 2 GB)",
    }  # fmt: skip
    whole = disk.estimate("deepseek-ai/DeepSeek-V2.5")
    assert whole is not None
    assert whole.required_gb == 504


@given(
    size=st.integers(min_value=1, max_value=2000), unit=st.sampled_from("bB"),
    words=st.sampled_from(["", "-instruct", "-v2"]),
    quantization=st.sampled_from(sorted(disk.BYTES)),
)  # fmt: skip
def test_the_parts_add_up(size: int, unit: str, words: str, quantization: str) -> None:
    found = disk.estimate(f"me/model-{size}{unit}{words}", quantization)
    assert found is not None
    assert found.weights == size * disk.BYTES[quantization]
    assert 0 <= found.required_gb - (found.weights + found.overhead + disk.IMAGE_GB) < 1
    assert found.overhead >= max(found.weights / 20, Decimal(2))


@given(small=st.integers(1, 999), more=st.integers(1, 999), quantization=st.sampled_from(sorted(disk.BYTES)))
def test_more_parameters_never_need_less(small: int, more: int, quantization: str) -> None:
    one, other = disk.estimate(f"m-{small}b", quantization), disk.estimate(f"m-{small + more}b", quantization)
    assert one is not None
    assert other is not None
    assert one.required_gb <= other.required_gb


@given(model_id=st.text(max_size=60), quantization=st.text(max_size=20))
def test_any_name_is_survived(model_id: str, quantization: str) -> None:
    found = disk.estimate(model_id, quantization)
    assert found is None or found.required_gb >= 10


# -- over HTTP ---------------------------------------------------------------------------------------------

DEEPSEEK: dict[str, Any] = {"model_id": "deepseek-ai/DeepSeek-V2.5", "quantization": "awq"}


@pytest.fixture
def offers(sandbox: SandboxProcess, db: None) -> None:
    apply([row("1", disk_gb=500.0), row("2", machine_id="8", disk_gb=100.0), row("3", machine_id="9", disk_gb=30.0)])


def test_too_little_is_refused_with_the_breakdown(api: Api, offers: None) -> None:
    answer = api.create(400, offer_id="vastai-1", disk_gb=131, **DEEPSEEK)
    answer.pop("request_id"), answer.pop("computed_as")
    assert answer == {
        "error": "disk_gb: deepseek-ai/DeepSeek-V2.5 needs about 132 GB, 131 GB were asked for",
        "error_type": "insufficient_disk", "field": "disk_gb", "model_id": "deepseek-ai/DeepSeek-V2.5",
        "offer_id": "vastai-1", "weights_gb": 118, "image_gb": 8, "overhead_gb": 5.9, "required_gb": 132,
        "requested_gb": 131, "available_gb": 500,
    }  # fmt: skip
    assert not Session.objects.exists()
    assert not Rental.objects.exists()
    assert api.create(offer_id="vastai-1", disk_gb=132, **DEEPSEEK)["session"]["disk_gb"] == 132


def test_an_offer_that_cannot_hold_it(api: Api, offers: None) -> None:
    answer = api.create(400, offer_id="vastai-2", **DEEPSEEK)
    assert answer["error"] == "disk_gb: deepseek-ai/DeepSeek-V2.5 needs about 132 GB, this offer has 100 GB"
    assert (answer["error_type"], answer["requested_gb"], answer["available_gb"]) == ("insufficient_disk", None, 100)
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    ("offer", "options", "expected"),
    [
        ("vastai-1", {}, 50),
        ("vastai-1", DEEPSEEK, 132),
        ("vastai-1", {"model_id": "x-7b"}, 50),
        ("vastai-1", {"model_id": "x-7b", "disk_gb": 24}, 24),
        ("vastai-1", {"model_id": "nobody-knows", "disk_gb": 8}, 8),
        ("vastai-3", {"model_id": "x-7b"}, 30),
        ("vastai-3", {}, 30),
    ],
)
def test_the_default_grows_with_the_model(
    api: Api, offers: None, offer: str, options: dict[str, Any], expected: int
) -> None:
    assert api.create(offer_id=offer, **options)["session"]["disk_gb"] == expected


def template(hash_id: str, **raw: Any) -> None:
    Template.objects.create(
        hash_id=hash_id, provider=raw.pop("provider", "vastai"), provider_id=7, name="T", image="me/t",
        raw={"runtype": "ssh", "use_ssh": True, **raw}, synced_at=clock.now(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recommended", "options", "offer", "expected"),
    [(32, {}, "vastai-1", 50), (64, {}, "vastai-1", 64), (64.5, {}, "vastai-1", 65), (None, {}, "vastai-1", 50),
     ("x", {}, "vastai-1", 50), (300, {}, "vastai-2", 100), (64, {"disk_gb": 20}, "vastai-1", 20),
     (64, DEEPSEEK, "vastai-1", 132)],
)  # fmt: skip
def test_a_templates_recommendation(
    api: Api, offers: None, recommended: Any, options: dict[str, Any], offer: str, expected: int
) -> None:
    template("abc", recommended_disk_space=recommended)
    assert api.create(offer_id=offer, template_hash_id="abc", **options)["session"]["disk_gb"] == expected


def test_unknown_and_foreign_templates(api: Api, offers: None) -> None:
    answer = api.create(404, offer_id="vastai-1", template_hash_id="nope")
    assert (answer["error"], answer["template_hash_id"]) == ("template nope not found", "nope")
    template("other", provider="tensordock")
    assert api.create(400, offer_id="vastai-1", template_hash_id="other")["field"] == "template_hash_id"
    assert not Session.objects.exists()
