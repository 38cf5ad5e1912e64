"""The admin's login, throttled in the database: a password cannot be guessed, by one process or by many."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.utils.crypto import salted_hmac

from gpubroker.common import clock
from gpubroker.common.models import LoginFailure
from gpubroker.common.ratelimit import address

if TYPE_CHECKING:
    from django.contrib.admin.forms import AdminAuthenticationForm as AuthenticationForm
else:
    from unfold.forms import AuthenticationForm

log = logging.getLogger(__name__)

WINDOW = timedelta(minutes=15)
#: Wrong passwords within the window, per user name and address; then even the right one must wait.
FAILURES = 5
#: The same per address, whatever the names.
FAILURES_PER_ADDRESS = 30
LOCKED = "Too many wrong passwords. Login is locked for you; try again in 15 minutes."


class ThrottledLogin(AuthenticationForm):
    def clean(self) -> dict[str, Any]:
        """Counts the attempt as a failure before it is looked at, so that many at once get no more tries than one."""
        if self.request is None:
            raise ValidationError(LOCKED, code="locked")
        where = address(self.request.META)
        name = str(self.cleaned_data.get("username", "")).casefold()
        who = salted_hmac("gpubroker.login", f"{name}\x00{where}", algorithm="sha256").hexdigest()
        now = clock.now()
        LoginFailure.objects.filter(at__lte=now - WINDOW).delete()
        attempt = LoginFailure.objects.create(who=who, address=where, at=now)
        before = LoginFailure.objects.filter(pk__lt=attempt.pk)
        of_name = before.filter(who=who).count()
        if of_name >= FAILURES or before.filter(address=where).count() >= FAILURES_PER_ADDRESS:
            # It was not tried, so it does not count: the lock ends by itself.
            attempt.delete()
            log.warning("login from %s is locked after %s wrong passwords", where, of_name)
            raise ValidationError(LOCKED, code="locked")
        cleaned = super().clean()
        LoginFailure.objects.filter(who=who).delete()
        return cleaned
