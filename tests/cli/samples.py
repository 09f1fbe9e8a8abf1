"""Answers of the control API, as central gives them."""

from typing import Any

READY: dict[str, Any] = {
    "id": "chat-0",
    "deployment": "chat",
    "node": "gpu-a",
    "engine": "vllm",
    "state": "ready",
    "reason": None,
    "message": "",
    "phase": "ready",
    "eta_s": None,
    "incarnation": "chat-0.aa",
    "pid": 41022,
    "url": "http://127.0.0.1:8000",
    "gpus": ["GPU-5c1b2d3e-aaaa-bbbb-cccc-000000000000"],
    "ready": True,
    "restarts": 0,
    "uptime_s": 7260.0,
    "requests_running": 9,
    "requests_waiting": 0,
    "kv_cache_usage": 0.61,
    "last_exit": None,
}
STARTING: dict[str, Any] = READY | {
    "id": "chat-1",
    "state": "starting",
    "phase": "loading weights",
    "eta_s": 41.0,
    "incarnation": "chat-1.bb",
    "ready": False,
    "uptime_s": 0.0,
    "requests_running": None,
    "requests_waiting": None,
    "kv_cache_usage": None,
}
CRASHED: dict[str, Any] = STARTING | {
    "id": "chat-2",
    "state": "crashed",
    "phase": "",
    "eta_s": None,
    "pid": None,
    "restarts": 4,
    "last_exit": {"code": None, "signal": 9, "cause": "killed", "age_s": 12.0, "detail": ""},
}
STALLED: dict[str, Any] = READY | {
    "id": "chat-3",
    "state": "degraded",
    "reason": "stalled",
    "message": "requests run but no token was made for 30 s",
}
CHAT: dict[str, Any] = {
    "name": "chat",
    "served_name": "llama-8b",
    "wanted": 2,
    "ready": 1,
    "starting": 1,
    "draining": 0,
    "min": 2,
    "max": 2,
    "scaler": "fixed",
    "reason": "fixed",
    "message": "fixed at 2",
    "progress": "",
    "cannot_place": [],
}
GPU: dict[str, Any] = {
    "uuid": "GPU-5c1b2d3e-aaaa-bbbb-cccc-000000000000",
    "index": 0,
    "name": "NVIDIA H200",
    "memory_total": 150 * 2**30,
    "memory_used": 75 * 2**30,
    "utilization": 0.5,
    "temperature_c": 61.0,
    "power_w": None,
    "health": "healthy",
    "use": "foreign",
    "holders": [{"pid": 777, "owner": "alice", "command": "python train.py", "bytes": 2**30}],
}
GPU_NODE: dict[str, Any] = {
    "name": "gpu-a",
    "zone": "rack-1",
    "state": "connected",
    "report_age_s": 0.4,
    "cordoned": False,
    "gpus": [GPU],
    "slots": [],
}
CPU_NODE: dict[str, Any] = GPU_NODE | {
    "name": "laptop",
    "zone": "",
    "gpus": [],
    "slots": [
        {"id": "slot-0", "use": "serving", "instance": "chat-0"},
        {"id": "slot-1", "use": "free", "instance": ""},
    ],
}
STATUS: dict[str, Any] = {
    "healthy": True,
    "problems": [],
    "central": {"version": "0.1.0", "epoch": "e", "uptime_s": 90.0, "snapshot_version": 7},
    "nodes": 1,
    "routers": [{"id": "r", "version": 7, "connected": True, "api_url": "http://127.0.0.1:9000"}],
    "deployments": [CHAT | {"ready": 2, "starting": 0}],
    "instances": {"ready": 2},
}
