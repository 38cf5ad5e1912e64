"""Templates in the console: what there is, fetching it now, and the offers on which one runs."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from gpubroker.common import clock
from templates_app import services
from templates_app.models import TemplateSync
from tests.console.people import person, text
from tests.harness import MovableClock
from tests.offers.factory import apply, row
from tests.sandbox import SandboxProcess
from tests.templates_app.factory import template

pytestmark = pytest.mark.django_db
LIST = "/admin/templates_app/template/"
HASH = f"{7:032x}"


def test_sync_now_makes_it_due_and_says_who(sandbox: SandboxProcess, time: MovableClock) -> None:
    ann = person("operator")
    assert services.claim_due() == ["vastai"]
    later = clock.now() + timedelta(minutes=30)
    TemplateSync.objects.update(next_sync_at=later, last_error="it was asleep")
    assert "it was asleep" in text(ann.get(LIST))
    assert "Sync now" in text(ann.get(f"{LIST}sync/"))
    assert TemplateSync.objects.get().next_sync_at == later
    ann.post(f"{LIST}sync/")
    assert TemplateSync.objects.get().next_sync_at == later
    done = ann.post(f"{LIST}sync/", {"confirmed": "yes"}, follow=True)
    assert "within seconds" in text(done)
    assert services.claim_due() == ["vastai"]
    (note,) = LogEntry.objects.all()
    assert (str(note.user), note.change_message) == ("ann", "asked for the templates of vastai")


@pytest.mark.parametrize("role", ["viewer", "finance"])
def test_who_may_not_operate_may_not_sync(sandbox: SandboxProcess, time: MovableClock, role: str) -> None:
    ann = person(role)
    assert services.claim_due() == ["vastai"]
    before = TemplateSync.objects.values().get()
    page = ann.get(LIST)
    assert page.status_code == 200
    assert f"{LIST}sync/" not in page.content.decode()
    assert ann.post(f"{LIST}sync/", {"confirmed": "yes"}).status_code == 403
    assert TemplateSync.objects.values().get() == before
    assert not LogEntry.objects.exists()


def test_the_pages(django_assert_max_num_queries: object) -> None:
    template(HASH, '{"gpu_ram": {"gte": 1000}}')
    template(f"{8:032x}", "{oh", name="Broken")
    template(f"{9:032x}", None, name="Anything")
    ann = person("viewer")
    rows = text(ann.get(LIST))
    assert ("Ollama" in rows, "Broken" in rows, "Anything" in rows) == (True, True, True)
    assert "is not valid JSON" in text(ann.get(f"{LIST}{8:032x}/change/"))
    page = ann.get(f"{LIST}{HASH}/change/")
    assert '"gte": 1000' in text(page)
    assert "../offers/" in page.content.decode()


def test_the_offers_on_which_it_runs() -> None:
    apply([
        row("1", raw={"gpu_ram": 24_000}), row("2", raw={"gpu_ram": 800}, price_per_hour=Decimal("0.1")),
        row("3", raw={"gpu_ram": 48_000}, price_per_hour=Decimal("0.3")),
    ])  # fmt: skip
    template(HASH, '{"gpu_ram": {"gte": 1000}}')
    template(f"{8:032x}", "{oh")
    ann = person("viewer")
    page = text(ann.get(f"{LIST}{HASH}/offers/"))
    assert "can run on 2 offers; 1 to 2, cheapest first." in page
    assert page.index("vastai-3") < page.index("vastai-1")
    assert "vastai-2" not in page
    assert "Its filters cannot be understood" in text(ann.get(f"{LIST}{8:032x}/offers/"))
    assert ann.get(f"{LIST}{9:032x}/offers/").status_code == 404
    assert ann.get(f"{LIST}{HASH}/offers/?offset=50").status_code == 200
    assert person("", name="ben").get(f"{LIST}{HASH}/offers/").status_code == 403


def test_no_row_costs_a_query() -> None:
    ann = person("viewer")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ann.get(LIST).status_code == 200
        return len(captured)

    template(HASH)
    few = queries()
    for number in range(20):
        template(f"{100 + number:032x}")
    assert queries() == few
