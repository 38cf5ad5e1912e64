"""Answers as they go over the wire: ETags, 304 and compression."""

from __future__ import annotations

import gzip

import pytest

from offers.pages import Page, choose, takes_gzip

LONG = Page(b'{"offers":[' + b",".join(b'{"id":"vastai-%d"}' % number for number in range(500)) + b"]}")
SHORT = Page(b'{"offers":[],"count":0,"total":0}')


@pytest.mark.parametrize(
    ("header", "takes"),
    [
        ("gzip", True), ("GZIP", True), ("gzip, deflate, br", True), ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("*", True), ("x-gzip", True), ("gzip;q=1.000", True), ("gzip; q=0.5", True), ("identity;q=0.5, gzip", True),
        ("", False), ("identity", False), ("br", False), ("gzip;q=0", False), ("gzip;q=0.0, *", False),
        ("*;q=0", False), ("gzip;q=2", False), ("gzip;q=x", False), ("gzip;level=9", False), ("gzipped", False),
        ("gzip;q=0.4, identity", False), (",,;q=1,", False),
    ],
)  # fmt: skip
def test_who_takes_gzip(header: str, takes: bool) -> None:
    assert takes_gzip(header) is takes


def test_compressed_where_it_pays_and_is_taken() -> None:
    plain, packed = choose(LONG, "", ""), choose(LONG, "gzip", "")
    assert (plain.status, plain.coding, plain.body) == (200, "", LONG.body)
    assert (packed.status, packed.coding) == (200, "gzip")
    assert gzip.decompress(packed.body) == LONG.body
    assert len(packed.body) < len(LONG.body) // 4  # what `len(page)` leaves room for
    assert choose(SHORT, "gzip", "").coding == ""


def test_tags_are_strong_and_of_the_bytes() -> None:
    """RFC 9110, 8.8.3: two forms of one answer are two representations."""
    tags = {choose(LONG, "", "").etag, choose(LONG, "gzip", "").etag, choose(SHORT, "", "").etag}
    assert len(tags) == 3
    assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)
    assert choose(Page(LONG.body), "gzip", "") == choose(LONG, "gzip", "")  # in every process, and after a restart


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_what_is_known_already_is_not_sent_again(coding: str) -> None:
    tag = choose(LONG, coding, "").etag
    for header in (tag, f"W/{tag}", f'"other", {tag}', f'W/"other",W/{tag}', "*", " * "):
        assert choose(LONG, coding, header).status == 304
        assert choose(LONG, coding, header).body == b""
    for header in ('"other"', tag.strip('"'), "", "garbage", '"*"'):
        assert choose(LONG, coding, header).status == 200


def test_the_tag_of_the_other_form_is_not_this_one() -> None:
    assert choose(LONG, "", choose(LONG, "gzip", "").etag).status == 200
