"""Grafana dashboards: `python -m supervisord_cp.obs.dashboards packaging/grafana/dashboards` writes them."""
