"""How long a boot may take: by image and model, at the offer's speed, counted from the provider's acceptance."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpubroker.common import clock
from offers.models import Offer
from sessions_app import boot_time, drive
from sessions_app.models import Rental, Session
from sessions_app.states import Debt, Status
from templates_app.models import Template
from tests.harness import Api, Driver, MovableClock
from tests.sandbox import SandboxProcess
from tests.sessions_app.test_states import make_rental, make_session

TEN = timedelta(minutes=10)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ("", 0), ("ubuntu:22.04", 0), ("me/server", 0), ("nvidia/cuda:12.4.1-base-ubuntu22.04", 0),
        ("vllm/vllm-openai:latest", 11), ("ghcr.io/huggingface/text-generation-inference:3.0", 7),
        ("pytorch/pytorch:2.4.0-cuda12.4-cudnn9-runtime", 4.5), ("pytorch/pytorch:2.4.0-cuda12.4-cudnn9-devel", 9),
        ("nvcr.io/nvidia/pytorch:24.10-py3", 11), ("tensorflow/tensorflow:latest-gpu", 4),
        ("yanwk/comfyui-boot:cu124", 8), ("ghcr.io/ggml-org/llama.cpp:server-cuda", 4),
        ("nvidia/cuda:12.4.1-devel-ubuntu22.04", 5), ("VLLM/VLLM-OpenAI", 11),
    ],
)  # fmt: skip
def test_heavy_images(image: str, size: float) -> None:
    assert boot_time.image_gb(image) == size


@given(
    gigabytes=st.floats(min_value=0, max_value=2000), more=st.floats(min_value=0, max_value=100),
    mbps=st.none() | st.floats(min_value=0.01, max_value=100_000),
)  # fmt: skip
def test_never_less_than_the_base_nor_more_than_an_hour_and_more_takes_longer(
    gigabytes: float, more: float, mbps: float | None
) -> None:
    time = boot_time.allowed(gigabytes, mbps)
    assert TEN <= time <= timedelta(hours=1)
    assert boot_time.allowed(gigabytes + more, mbps) >= time
    assert boot_time.allowed(gigabytes, (mbps or 100) * 2) <= time


def test_a_base_above_the_hour_counts(settings: Any) -> None:
    settings.SSH_VERIFY_SECONDS = 7200
    assert boot_time.allowed(500, 10) == timedelta(hours=2)


def booting(image: str = "", **changes: Any) -> tuple[Session, Rental]:
    session = make_session(Status.PROVISIONING, docker_image=image, **changes)
    return session, make_rental(
        session, Debt.LIVE, offer_provider_id="1", accepted_at=clock.now(), keys_attached_at=clock.now()
    )


def allowed(session: Session, rental: Rental) -> timedelta:
    assert rental.accepted_at is not None
    return boot_time.deadline(session, rental) - rental.accepted_at


@pytest.mark.django_db
def test_a_light_image_asks_the_database_nothing(django_assert_num_queries: Any) -> None:
    session, rental = booting("ubuntu:22.04")
    with django_assert_num_queries(0):
        assert allowed(session, rental) == TEN


@pytest.mark.django_db
def test_before_the_base_is_over_the_database_is_not_asked(django_assert_num_queries: Any, time: MovableClock) -> None:
    session, rental = booting("vllm/vllm-openai:latest")
    with django_assert_num_queries(0):
        assert not boot_time.is_over(session, rental, clock.now() + TEN - timedelta(seconds=1))
        assert boot_time.not_past(session, rental, clock.now()) <= clock.now()


def test_a_heavy_image_at_the_offers_speed(market: SandboxProcess) -> None:
    offer = Offer.objects.first()
    assert offer is not None
    Offer.objects.filter(id=offer.id).update(inet_down_mbps=800)
    session, rental = booting("vllm/vllm-openai:latest", offer_id=offer.id)
    # 11 GB at half of 800 Mbit/s, and 15 s a GB to unpack.
    assert allowed(session, rental) == TEN + timedelta(seconds=11 * (20 + 15))
    Offer.objects.filter(id=offer.id).update(inet_down_mbps=20)
    assert allowed(session, rental) == timedelta(hours=1)
    assert boot_time.seconds(session, rental) == 3600


@pytest.mark.django_db
def test_the_templates_image_counts() -> None:
    Template.objects.create(
        hash_id="abc", provider="vastai", provider_id=1, name="t", image="tensorflow/tensorflow", synced_at=clock.now()
    )
    session, rental = booting(template_hash_id="abc")
    # 4 GB at half of 100 Mbit/s, which is assumed of an offer that says nothing.
    assert allowed(session, rental) == TEN + timedelta(seconds=4 * (160 + 15))
    assert boot_time.to_fetch_gb(make_session(template_hash_id="gone", offer_id="vastai-2")) == 0


@pytest.mark.django_db
def test_the_models_weights_count_where_the_answer_waits_for_them() -> None:
    options = {"model_id": "Qwen/Qwen2.5-7B-Instruct", "exposed_ports": [8000]}
    with_ssh = make_session(launch_options=options, docker_image="me/server")
    by_entrypoint = make_session(
        launch_options=options, docker_image="me/server", launch_mode="entrypoint", offer_id="vastai-2"
    )
    unknown = make_session(
        launch_options={**options, "model_id": "me/mine"}, launch_mode="entrypoint", offer_id="vastai-3"
    )
    assert [boot_time.to_fetch_gb(each) for each in (with_ssh, by_entrypoint, unknown)] == [0, 14, 0]


@pytest.mark.django_db
def test_the_stuck_timer_counts_from_acceptance_not_from_creation(time: MovableClock) -> None:
    """A known defect of others: minutes in a queue, or at the provider's gate, were held against the machine."""
    session = make_session(Status.PROVISIONING, created_at=clock.now() - timedelta(minutes=9))
    make_rental(session, Debt.LIVE, offer_provider_id="1", accepted_at=clock.now(), keys_attached_at=clock.now())
    time.advance(minutes=9, seconds=59)
    drive.drive_session(session.id)
    assert Session.objects.get().status == "provisioning"
    time.advance(seconds=2)
    drive.drive_session(session.id)
    assert Session.objects.get().end_reason == "boot_timeout"


@pytest.mark.django_db
def test_the_stuck_timer_starts_anew_once_when_an_address_shows_and_not_for_words() -> None:
    session, rental = booting()
    assert rental.accepted_at is not None
    rental.status_message = "4f4fb700ef54: Downloading 79%"
    assert allowed(session, rental) == TEN
    rental.verify_from = rental.accepted_at + timedelta(minutes=2)
    assert allowed(session, rental) == TEN
    rental.verify_from = rental.accepted_at + timedelta(minutes=9)
    assert allowed(session, rental) == timedelta(minutes=14)
    rental.verify_from = rental.accepted_at + timedelta(minutes=59)
    assert allowed(session, rental) == timedelta(hours=1)


@pytest.mark.django_db
def test_the_next_look_is_never_after_the_deadline() -> None:
    session, rental = booting()
    assert rental.accepted_at is not None
    end = rental.accepted_at + TEN
    assert boot_time.not_past(session, rental, end - timedelta(seconds=5)) == end - timedelta(seconds=5)
    assert boot_time.not_past(session, rental, end + timedelta(seconds=5)) == end


def test_an_image_that_is_not_to_be_had_fails_at_once_though_the_provider_says_loading(
    market: SandboxProcess, api: Api, driver: Driver
) -> None:
    market.fault("boot_error", mode="pull")
    session_id = api.create(docker_image="vllm/vllm-openai:no-such-tag")["session"]["id"]
    session = driver.until_status(session_id, "failed")
    assert session.end_reason == "boot_failed"
    assert "manifest unknown" in session.end_message
    assert market.alive() == []


def test_a_pull_that_is_tried_again_is_waited_for(market: SandboxProcess, api: Api, driver: Driver) -> None:
    words = "error pulling image, retrying: i/o timeout"
    market.fault("boot_error", mode="pull", message=words)
    session_id = api.create()["session"]["id"]
    driver.until(lambda: Rental.objects.get().status_message == words)
    driver.round()
    assert Session.objects.get(id=session_id).status == "provisioning"
