with runs as (
    select * from {{ ref('stg_run_metrics') }}
    where kind = 'run'
),

newest as (
    select max(finished_at) as as_of from runs
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
        runs.job,
        windows.time_window,
        any_value(windows.as_of) as as_of,
        {{ slo_measures() }},
        cast(count(*) filter (sla_met is not null) as bigint) as sla_judged,
        cast(count(*) filter (not sla_met) as bigint) as sla_misses
    from runs
    inner join windows on runs.finished_at > windows.as_of - windows.length
    group by runs.job, windows.time_window
),

alerts as (
    select
        deliveries.job,
        windows.time_window,
        cast(count(*) as bigint) as messages,
        quantile_cont(deliveries.lag_seconds, 0.95) as alert_lag_p95_seconds
    from {{ ref('stg_deliveries') }} as deliveries
    inner join windows on deliveries.sent_at > windows.as_of - windows.length
    where deliveries.outcome = 'sent'
    group by deliveries.job, windows.time_window
)

select
    measured.job,
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
    measured.sla_judged,
    measured.sla_misses,
    1 - measured.failure_rate / (1 - {{ slo_objective() }}) as error_budget_left,
    coalesce(alerts.messages, 0) as messages,
    alerts.alert_lag_p95_seconds
from measured
left join alerts on measured.job = alerts.job and measured.time_window = alerts.time_window
order by measured.job, measured.time_window
