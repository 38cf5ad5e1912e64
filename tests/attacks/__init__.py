"""The attacker's pass: what somebody without rights, or with few, tries on the API. Exact answers, nothing changed.

By file: keys, others' ids, texts, numbers, bodies, requests (paths, headers, limits), the admin, what a consumer's
words could make the broker call, and the raw wire of the real web server with its log.

What other folders hold already is not repeated: isolation of consumers (gpubroker/test_isolation,
sessions_app/test_isolation), keys (billing/test_keys, gpubroker/test_auth), safety headers, sizes of bodies and the
login's lock (gpubroker/test_security), slow bodies (gpubroker/test_bodies), forged log lines (common/test_logs), whose
address it is (common/test_ratelimit).
"""
