"""What ``benchmarks read`` makes of wrk's words, and what ``compare`` makes of two runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import compare, read

PRINTED = """Running 3s test @ http://127.0.0.1:8080/api/v1/inventory
  2 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.34ms    1.10ms  30.10ms   92.50%
    Req/Sec     8.40k     1.14k    9.00k    69.05%
  Latency Distribution
     50%  812.00us
     75%    1.26ms
     90%    1.40ms
     99%    1.50s 
  50301 requests in 3.04s, 31.02KB read
{more}Requests/sec:  16767.25
Transfer/sec:      7.67KB
"""  # noqa: W291 - as wrk prints it


def test_wrk_is_understood() -> None:
    assert read.numbers(PRINTED.format(more="")) == (16767.25, 0.812, 1500.0, 0)
    broken = "  Socket errors: connect 1, read 2, write 0, timeout 3\n  Non-2xx or 3xx responses: 40\n"
    assert read.numbers(PRINTED.format(more=broken)) == (16767.25, 0.812, 1500.0, 46)
    with pytest.raises(RuntimeError, match="unable to connect"):
        read.numbers("unable to connect to 127.0.0.1:8080 Connection refused")


def row(rate: float, median: float = 1.0, **changes: object) -> read.Measured:
    fields = {"name": "x", "auth": "open", "failed": 0, "bytes": 1, "target": 100.0, "by_median": False, "load": 0.5}
    return read.Measured(**{**fields, "requests_per_second": rate, "median_ms": median, "p99_ms": 2.0, "cpu_ms": 0.5,
                            **changes})  # type: ignore[arg-type]  # fmt: skip


def test_what_is_reached() -> None:
    assert [row(rate).reached for rate in (99.0, 100.0)] == [False, True]
    assert [row(rate, auth="key").reached for rate in (79.0, 80.0)] == [False, True]
    assert not row(1000.0, failed=1).reached
    assert [row(1.0, median, target=8.0, by_median=True).reached for median in (7.9, 8.1)] == [True, False]
    assert [row(1.0, median, target=8.0, by_median=True, auth="key").reached for median in (9.9, 10.1)] == [True, False]


def test_two_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    old = [
        {"name": name, "auth": "open", "requests_per_second": 1000.0, "load": 1.0} for name in ("a", "b", "c", "gone")
    ]
    new = [{**each, "requests_per_second": rate} for each, rate in zip(old, (1100.0, 2000.0, 500.0), strict=False)]
    before.write_text(json.dumps(old))
    after.write_text(json.dumps(new))
    compare.main([str(before), str(after)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "c", "gone"]
    assert ["+10% same" in lines[0], "+100% FASTER" in lines[1], "-50% SLOWER" in lines[2]] == [True] * 3
    assert "only in one" in lines[3]
    with pytest.raises(SystemExit):
        compare.main([str(before)])
