with captures as (
    select
        asset as feed,
        date_trunc('minute', finished_at - to_milliseconds(cast(1000 * duration_seconds as bigint))) as minuto,
        delivery = 'delivered' as captured
    from {{ ref('stg_run_metrics') }}
    where kind = 'step' and asset = '{{ slo_minutely_feed() }}' and duration_seconds is not null
),

newest as (
    -- The minute of the newest run is not over yet.
    select
        max(finished_at) as as_of,
        date_trunc('minute', max(finished_at)) - interval 1 minute as last_due
    from {{ ref('stg_run_metrics') }}
    where kind = 'run'
),

feeds as (
    select
        feed,
        min(minuto) as since
    from captures
    group by feed
),

windows as (
    select
        feeds.feed,
        w.time_window,
        newest.as_of,
        newest.last_due,
        greatest(feeds.since, newest.last_due - w.length + interval 1 minute) as first_due
    from ({{ slo_windows() }}) as w
    cross join newest
    cross join feeds
)

select
    windows.feed,
    windows.time_window,
    windows.as_of,
    greatest(date_diff('minute', windows.first_due, windows.last_due) + 1, 0) as minutes_due,
    cast(count(distinct captures.minuto) as bigint) as minutes_captured,
    count(distinct captures.minuto)
    / nullif(greatest(date_diff('minute', windows.first_due, windows.last_due) + 1, 0), 0)::double as delivery_rate,
    max(captures.minuto) as newest_minute
from windows
left join captures
    on
        windows.feed = captures.feed and captures.captured
        and captures.minuto between windows.first_due and windows.last_due
group by windows.feed, windows.time_window, windows.as_of, windows.first_due, windows.last_due
order by windows.feed, windows.time_window
