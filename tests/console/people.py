"""People of each role, logged in, and what they see of a page."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client


def person(role: str = "", name: str = "ann", **more: Any) -> Client:
    """Staff with this role; without one, staff who may nothing yet."""
    user = User.objects.create_user(name, password=None, is_staff=True, **more)
    user.groups.set(Group.objects.filter(name=role))
    return logged_in(user)


def superuser(name: str = "root") -> Client:
    return logged_in(User.objects.create_superuser(name, password=None))


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text(answer: Any) -> str:
    """What a reader sees: no tags, and one space between words."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())).split())
