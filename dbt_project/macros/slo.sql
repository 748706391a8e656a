{# The windows over which service levels are measured, ending with the newest run. The objective is 99 % good runs. #}
{% macro slo_windows() %}
    select *
    from (values ('24h', interval 24 hour), ('7d', interval 7 day), ('30d', interval 30 day)) as w (time_window, length)
{% endmacro %}

{% macro slo_objective() %}0.99{% endmacro %}

{# Measures of runs or steps. A canceled one is neither good nor bad: somebody wanted it to end. #}
{% macro slo_measures() %}
    cast(count(*) as bigint) as runs,
    cast(count(*) filter (outcome = 'success') as bigint) as successes,
    cast(count(*) filter (outcome in ('failure', 'lost')) as bigint) as failures,
    count(*) filter (outcome = 'success') / nullif(count(*) filter (outcome in ('success', 'failure', 'lost')), 0)::double
        as success_rate,
    count(*) filter (outcome in ('failure', 'lost')) / nullif(count(*) filter (outcome in ('success', 'failure', 'lost')), 0)::double
        as failure_rate,
    quantile_cont(duration_seconds, 0.50) as p50_seconds,
    quantile_cont(duration_seconds, 0.95) as p95_seconds,
    quantile_cont(duration_seconds, 0.99) as p99_seconds,
    cast(coalesce(sum(retries), 0) as bigint) as retries,
    cast(coalesce(sum(rows_written), 0) as bigint) as rows_written
{% endmacro %}
