{# The windows over which service levels are measured, ending with the newest run. The objective is 99 % good runs. #}
{% macro slo_windows() %}
    select *
    from (values ('24h', interval 24 hour), ('7d', interval 7 day), ('30d', interval 30 day)) as w (time_window, length)
{% endmacro %}

{% macro slo_objective() %}0.99{% endmacro %}

{# Good is what delivered, or found nothing new; a canceled run has no delivery and counts neither way: somebody wanted its end. #}
{% macro slo_good() %}delivery in ('delivered', 'nothing'){% endmacro %}

{# Measures of runs or steps. #}
{% macro slo_measures() %}
    cast(count(*) as bigint) as runs,
    cast(count(*) filter ({{ slo_good() }}) as bigint) as successes,
    cast(count(*) filter (not {{ slo_good() }}) as bigint) as failures,
    count(*) filter ({{ slo_good() }}) / nullif(count(delivery), 0)::double as success_rate,
    count(*) filter (not {{ slo_good() }}) / nullif(count(delivery), 0)::double as failure_rate,
    quantile_cont(duration_seconds, 0.50) as p50_seconds,
    quantile_cont(duration_seconds, 0.95) as p95_seconds,
    quantile_cont(duration_seconds, 0.99) as p99_seconds,
    cast(coalesce(sum(retries), 0) as bigint) as retries,
    cast(coalesce(sum(rows_written), 0) as bigint) as rows_written
{% endmacro %}

{# The feed that is due every minute, by the asset that captures it. #}
{% macro slo_minutely_feed() %}landing/brt_captura{% endmacro %}
