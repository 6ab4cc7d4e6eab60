"""Health and metrics of a real server."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

ROW = [0.5] * 6


def test_health_and_metrics(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}

    def value(series: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return float(next((line.rpartition(" ")[2] for line in lines if line.startswith(series + " ")), "0"))

    plain = 'model="plain",version="1"'
    names = (
        f"nv_inference_request_success{{{plain}}}",
        f'nv_inference_request_failure{{{plain},reason="OTHER"}}',
        'kron_failures_total{reason="BadRequest"}',
        f"nv_inference_count{{{plain}}}",
        f"nv_inference_exec_count{{{plain}}}",
        f"kron_compute_seconds_count{{{plain}}}",
        f"kron_batch_rows_sum{{{plain}}}",
        f'kron_batch_rows_bucket{{{plain},le="2"}}',
        f'kron_batch_rows_bucket{{{plain},le="4"}}',
        f"kron_queue_seconds_count{{{plain}}}",
        f'kron_request_seconds_bucket{{{plain},le="+Inf"}}',
    )
    before = [value(name) for name in names]
    client.post("/api/predict", json={"inputs": [ROW] * 3, "models": ["plain"]})
    client.post("/api/predict", json={"inputs": [ROW[1:]], "models": ["plain"]})
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [1, 1, 1, 3, 1, 1, 3, 0, 1, 1, 1]
    for name in ("request", "queue", "compute_infer"):
        assert value(f"nv_inference_{name}_duration_us{{{plain}}}") >= 0
    families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert {"nv_inference_request_success", "kron_request_seconds", "process_resident_memory_bytes"} <= {
        family.name for family in families
    }
    info = 'kron_model_info{model="plain",provider="CPUExecutionProvider",threads='
    assert info in client.get("/metrics").text
