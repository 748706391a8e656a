with steps as (
    select * from {{ ref('stg_run_metrics') }}
    where kind = 'step' and asset is not null and outcome <> 'skipped'
),

newest as (
    select max(finished_at) as as_of from {{ ref('stg_run_metrics') }}
),

windows as (
    select
        time_window,
        length,
        as_of
    from ({{ slo_windows() }}) cross join newest
),

measured as (
    select
        steps.asset,
        windows.time_window,
        any_value(windows.as_of) as as_of,
        {{ slo_measures() }}
    from steps
    inner join windows on steps.finished_at > windows.as_of - windows.length
    group by steps.asset, windows.time_window
),

{# A failed check's key is check:<asset>:<name>. #}
alerts as (
    select
        split_part(deliveries.alert_key, ':', 2) as asset,
        windows.time_window,
        cast(count(*) as bigint) as messages,
        quantile_cont(deliveries.lag_seconds, 0.95) as alert_lag_p95_seconds
    from {{ ref('stg_deliveries') }} as deliveries
    inner join windows on deliveries.sent_at > windows.as_of - windows.length
    where deliveries.outcome = 'sent' and deliveries.alert_key like 'check:%'
    group by 1, 2
)

select
    measured.asset,
    measured.time_window,
    measured.as_of,
    measured.runs,
    measured.successes,
    measured.failures,
    measured.success_rate,
    measured.failure_rate,
    measured.p50_seconds,
    measured.p95_seconds,
    measured.p99_seconds,
    measured.retries,
    measured.rows_written,
    coalesce(alerts.messages, 0) as messages,
    alerts.alert_lag_p95_seconds
from measured
left join alerts on measured.asset = alerts.asset and measured.time_window = alerts.time_window
order by measured.asset, measured.time_window
