"""Observability: what the lakehouse says about itself.

Here: alerts and events as Delta tables, and how they are sent; health of tables and services, metrics of runs.
Comes from: Dagster's event log, the tables' own logs, the services that are configured.
Goes to: `ops/` tables, Kafka, e-mail, Slack, Prometheus. Never: changes another layer's table; sends what is not in Delta yet.
Rerun: an alert, an event and a run's metrics are taken in once; what was not delivered is delivered.
"""
