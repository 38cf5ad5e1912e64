"""Paying the debt: destroy, look, and close only with a proof. There is no give-up.

Debts of one provider are paid together: destroys that were never answered go in calls for many where the provider has
them, and every machine is proved gone by itself. What our own gate holds back is due again when it opens, all at once,
so that one task per provider asks the gate and not one per machine.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F

from gpubroker.common import clock, counters, gathered, logs
from gpubroker.common import providers as configured
from gpubroker.common.counters import DURATION_BUCKETS
from gpubroker.common.errors import ApiError
from providers.base import ALREADY_GONE, MOST_TOGETHER, DestroysMany, Provider
from providers.errors import GateClosed, OutcomeUnknown, ProviderError, RateLimited, Unavailable
from sessions_app import sightings
from sessions_app.claims import Keeping
from sessions_app.ending import close_rental
from sessions_app.models import Event, Rental
from sessions_app.states import Debt
from sessions_app.transitions import lock_rentals, record_all

log = logging.getLogger(__name__)

#: A machine that is still there this long after the provider said yes is asked to go once more.
ASK_AGAIN = timedelta(seconds=15)
#: A machine that is listed every few seconds while it boots was not seen lately when this is over. What it may have
#: cost since then is on nobody's books: at $9 an hour 60 s, as this once was, were 15 cents.
UNSEEN = timedelta(seconds=15)
MOST_PAUSE = 60.0
#: After a call for many the first looks wait this long: the destroys go first.
FIRST_LOOK = 3.0
#: Between two looks at one machine, while few wait for theirs; seconds that one look takes at the vendor's own pace.
LOOK_PAUSE = 10.0
LOOK_SECONDS = 2.0
#: How ``last_error`` begins after a call for many was refused for what it asked: its machines are asked for singly.
REFUSED_TOGETHER = "refused together with others"
#: Machines that are looked at before their destroys, because nobody could tell afterwards what they cost; where there
#: are more, those that answered us are metered from their answer instead.
MOST_LAST_WORDS = 8
#: The rest of a batch waits no longer than this for a provider that is unwell.
MOST_HOLD = 10.0


def pay(rental: Rental) -> None:
    """One step towards the proof of one debt."""
    pay_all(rental.provider, [rental.id])


def pay_all(provider_name: str, rental_ids: Sequence[uuid.UUID]) -> None:
    """One step for debts of one provider: send the destroys that were not accepted lately, then look."""
    debts = _debts(provider_name, rental_ids)
    if not debts:
        return
    try:
        provider = configured.get(provider_name)
    except ApiError as error:
        _hold(debts, 30, error.message)
        return
    unsent = [rental for rental in debts if rental.destroy_answered_at is None]
    unmetered = [rental for rental in unsent if _is_unmetered(rental)]
    if len(unmetered) > MOST_LAST_WORDS:
        sightings.take_answers(unmetered)
    keeping = Keeping()
    for rental in unmetered:
        keeping.keep(debts)
        if not _last_word(provider, rental):
            break  # each further look might cost its whole time-out, and the destroys wait behind it
    sending = _Sending(provider, unsent, keeping)
    sending.run([rental for rental in debts if rental.destroy_answered_at is not None])
    answered = [rental for rental in debts if rental.destroy_answered_at is not None]
    looked = {rental.id for rental in sending.look}
    looks = [*sending.look, *(r for r in answered if r.id not in looked and r.id not in sending.together)]
    again = _look_at(provider, looks, sending.refused, keeping)
    _Sending(provider, again, keeping).run()


def _is_unmetered(rental: Rental) -> bool:
    """No listing has shown it running (again) yet, nor lately shown it at all, e.g. as nothing of ours was up."""
    seen = rental.last_seen_at or rental.accepted_at or rental.created_at
    lately = timedelta(0) <= clock.now() - seen < UNSEEN  # a clock that was set back proves nothing
    return rental.gpu_rate is None and not rental.destroy_failures and not lately


def _last_word(provider: Provider, rental: Rental) -> bool:
    """Since when the GPU of an unmetered machine costs: afterwards nobody could tell. The destroy waits for no more
    than this one look. ``False``: the provider is not to be asked now."""
    if rental.gpu_rate is not None:
        return True
    try:
        instance = provider.get_instance(rental.instance_id)
    except ProviderError as error:
        log.warning("what %s has cost is not known: %s", rental.label, error)
        return not (isinstance(error, GateClosed | RateLimited) or _unwell(error))
    if instance is not None:
        sightings.take_rates(rental, instance, clock.now())
    return True


def _debts(provider_name: str, rental_ids: Sequence[uuid.UUID]) -> list[Rental]:
    found = {
        rental.id: rental
        for rental in Rental.objects.select_related("session").filter(
            id__in=rental_ids, provider=provider_name, state=Debt.DESTROYING
        )
    }
    return [found[rental_id] for rental_id in rental_ids if rental_id in found]


def _overdue(rental: Rental) -> bool:
    """It is still there although the provider said yes: to be asked once more. Only a look shows that: hundreds may
    wait for theirs, and destroys of what is gone would take the place of those that were never sent."""
    answered = rental.destroy_answered_at
    return answered is not None and clock.now() - answered > _patience(rental)


def _patience(rental: Rental) -> timedelta:
    """Grows with every accepted destroy that did not work."""
    doublings = min(rental.destroy_attempts, 4)
    return ASK_AGAIN * ((1 << doublings) - 1)


def _pause(count: int) -> float:
    return float(min(0.5 * 2 ** min(count, 10), MOST_PAUSE))


def _unwell(error: ProviderError) -> bool:
    return isinstance(error, Unavailable | OutcomeUnknown)


def _hold(rentals: Iterable[Rental], seconds: float, error: str | None = None) -> None:
    """Due again then. ``error``: what to show for it; ``None`` leaves what is shown."""
    changes = {} if error is None else {"last_error": error[:300]}
    with transaction.atomic():
        lock_rentals(rentals, Debt.DESTROYING).update(
            next_check_at=clock.now() + timedelta(seconds=max(seconds, 0.05)), **changes
        )


class _Sending:
    """The destroys of one batch, one call after the other, the largest calls first."""

    def __init__(self, provider: Provider, rentals: Sequence[Rental], keeping: Keeping) -> None:
        self.provider = provider
        self.keeping = keeping
        self.left = deque(_calls(provider, rentals))
        #: To be looked at now: somebody else may have ended what is refused to us.
        self.look: list[Rental] = []
        #: Due after a pause of their own, which no look may shorten.
        self.refused: set[uuid.UUID] = set()
        #: Accepted in a call for many, and looked at later.
        self.together: set[uuid.UUID] = set()

    def run(self, then: Sequence[Rental] = ()) -> None:
        """``then``: what the same thread does afterwards."""
        while self.left:
            self.keeping.keep([*(rental for each in self.left for rental in each), *then])
            batch = self.left.popleft()
            try:
                answer = _destroy(self.provider, batch)
            except GateClosed as error:
                self._put_off(batch, error.retry_after or 0.5)
            except ProviderError as error:
                self._refused(batch, error)
            else:
                _accepted(batch, answer)
                if len(batch) == 1:
                    self.look += batch
                else:
                    self.together |= {rental.id for rental in batch}

    def _put_off(self, batch: Sequence[Rental], seconds: float) -> None:
        _hold([*batch, *(rental for each in self.left for rental in each)], seconds)
        self.left.clear()

    def _refused(self, batch: list[Rental], error: ProviderError) -> None:
        if isinstance(error, RateLimited) and len(batch) > 1:
            # Too early, and nobody's fault: they stay together.
            counters.increment("gpu_destroy_failures_total", provider=batch[0].provider)
            self._put_off(batch, error.retry_after or 1.0)
            return
        for_cause = not isinstance(error, RateLimited) and not _unwell(error)
        pause = _refused(batch, error, for_cause=for_cause)
        if len(batch) == 1:
            self.look += batch
            self.refused.add(batch[0].id)
        if isinstance(error, RateLimited):
            self._put_off([], error.retry_after or pause)
        elif not for_cause:
            self._put_off([], min(pause, MOST_HOLD))
        elif len(batch) > 1:
            # One bad id must not keep the others alive: each by itself.
            self.left.extendleft([rental] for rental in reversed(batch))


def _calls(provider: Provider, rentals: Sequence[Rental]) -> list[list[Rental]]:
    """In calls for many where that is possible, the largest first, else in the order given."""
    together = [rental for rental in rentals if isinstance(provider, DestroysMany) and _may_go_together(rental)]
    chosen = {rental.id for rental in together}
    many = [together[start : start + MOST_TOGETHER] for start in range(0, len(together), MOST_TOGETHER)]
    return [*many, *([rental] for rental in rentals if rental.id not in chosen)]


def _may_go_together(rental: Rental) -> bool:
    """Not where a yes for many did not work for it, nor after a refusal of many. A provider that is unwell says nothing
    about the machine; but should it be unwell whenever it meets this one, every fourth try is made alone."""
    if rental.destroy_answered_at is not None or rental.last_error.startswith(REFUSED_TOGETHER):
        return False
    return rental.destroy_failures == 0 or rental.destroy_failures % 4 != 0


def _destroy(provider: Provider, batch: Sequence[Rental]) -> str:
    if len(batch) > 1 and isinstance(provider, DestroysMany):
        return provider.destroy_many([rental.instance_id for rental in batch])
    return provider.destroy(batch[0].instance_id)


def _accepted(batch: Sequence[Rental], answer: str) -> None:
    """The provider said yes. Only an answer about one machine shows that it knew that machine."""
    now, together = clock.now(), len(batch) > 1
    known = {} if together or answer == ALREADY_GONE else {"destroy_taken": True}
    due = {"next_check_at": now + timedelta(seconds=FIRST_LOOK)} if together else {}
    with transaction.atomic():
        lock_rentals(batch, Debt.DESTROYING).update(
            destroy_attempts=F("destroy_attempts") + 1, destroy_answered_at=now, last_error="", **known, **due
        )
        record_all(
            Event(session_id=rental.session_id, rental_id=rental.id, kind="destroy_accepted", reason=answer[:300],
                  details={"instance_id": rental.instance_id, "attempt": rental.destroy_attempts + 1,
                           **({"machines_in_the_call": len(batch)} if together else {})})
            for rental in batch
        )  # fmt: skip
    for rental in batch:
        rental.destroy_answered_at = now
        rental.destroy_taken = rental.destroy_taken or bool(known)


def _refused(batch: Sequence[Rental], error: ProviderError, *, for_cause: bool) -> float:
    """Counted, shown and due again after a growing pause; which is returned, in seconds."""
    said = f"{REFUSED_TOGETHER} ({len(batch)}): {error}" if for_cause and len(batch) > 1 else str(error)
    failures = max(rental.destroy_failures for rental in batch) + 1
    pause = max(error.retry_after or 0, _pause(failures))
    with transaction.atomic():
        lock_rentals(batch, Debt.DESTROYING).update(
            destroy_failures=F("destroy_failures") + 1,
            next_check_at=clock.now() + timedelta(seconds=pause),
            last_error=said[:300],
        )
        counters.increment("gpu_destroy_failures_total", len(batch), provider=batch[0].provider)
        record_all(
            Event(session_id=rental.session_id, rental_id=rental.id, kind="destroy_refused", reason=str(error)[:300],
                  details={"instance_id": rental.instance_id, "failures": rental.destroy_failures + 1,
                           "again_in_seconds": round(pause, 1)})
            for rental in batch
        )  # fmt: skip
    for rental in batch:
        rental.destroy_failures += 1
        rental.last_error = said[:300]
    one = batch[0] if len(batch) == 1 else None
    ids = {"session_id": one.session_id or "", "rental_id": str(one.id)} if one is not None else {}
    with logs.context(**ids):
        labels = one.label if one is not None else f"{len(batch)} machines"
        log.error("destroy of %s refused, %d times now, again in %.0f s: %s", labels, failures, pause, error)
    return pause


def _look_at(provider: Provider, rentals: Sequence[Rental], refused: set[uuid.UUID], keeping: Keeping) -> list[Rental]:
    """One after the other, as long as the provider lets us; the due times of those ``refused`` stay as they are.
    Those that are to be asked to go once more."""
    again = []
    for place, rental in enumerate(rentals):
        keeping.keep([each for each in rentals[place:] if each.id not in refused])
        said: str | None
        try:
            with logs.context(session_id=rental.session_id or "", rental_id=str(rental.id)):
                pause, said = _look(rental, provider)
        except ProviderError as error:
            held = isinstance(error, GateClosed)
            pause, said = error.retry_after or _pause(0 if held else 2), None if held else str(error)
            if held or isinstance(error, RateLimited) or _unwell(error):
                rest = [each for each in rentals[place + 1 :] if each.id not in refused]
                _hold(rest, min(pause, MOST_HOLD))
                rentals = rentals[: place + 1]
        if pause and rental.id not in refused:
            _hold([rental], pause, said)
            if said is not None and _overdue(rental):
                again.append(rental)
        if len(rentals) == place + 1:
            break
    return again


def _look(rental: Rental, provider: Provider) -> tuple[float, str]:
    """The proof is the provider's own word, asked directly, that it has no such machine. Seconds until the next look
    and why; 0: none is needed."""
    asked = clock.now()
    instance = provider.get_instance(rental.instance_id)
    if instance is None and not _credible(rental, asked):
        return 5.0, "the provider does not know it (yet); it is too young for that to be a proof"
    if instance is None:
        proof = {
            "call": f"get instance {rental.instance_id}",
            "answer": "the provider has no such machine",
            "destroy_accepted_at": rental.destroy_answered_at.isoformat() if rental.destroy_answered_at else None,
        }
        # The bill ends when the provider took the destroy, not when we came to look.
        if close_rental(rental, {Debt.DESTROYING}, proof, billed_until=rental.destroy_answered_at or asked):
            log.info("machine %s is gone: %s", rental.instance_id, rental.label)
            owed_since = rental.destroy_requested_at or asked
            gathered.observe(
                "gpu_destroy_duration_seconds", max((clock.now() - owed_since).total_seconds(), 0.0), DURATION_BUCKETS,
                provider=rental.provider,
            )  # fmt: skip
        return 0.0, ""
    waited = (asked - (rental.destroy_answered_at or asked)).total_seconds()
    return min(max(waited, 0.5), _most_pause(rental.provider)), f"still {instance.status or 'there'}"


def _most_pause(provider_name: str) -> float:
    """Where hundreds wait for their look, nobody is looked at twice before the others had theirs."""
    waiting = Rental.objects.filter(
        provider=provider_name, state=Debt.DESTROYING, destroy_answered_at__isnull=False
    ).count()
    return max(LOOK_PAUSE, waiting * LOOK_SECONDS * settings.PROVIDER_PACE)


def _credible(rental: Rental, now: datetime) -> bool:
    """A fresh machine may not be known everywhere at the provider yet: as long as its listing may lag, "no such
    machine" is a proof only after a destroy that the provider took as one."""
    if rental.destroy_taken:
        return True
    age = now - (rental.accepted_at or rental.created_at)
    return age >= timedelta(seconds=settings.LISTING_LAG_SECONDS)
