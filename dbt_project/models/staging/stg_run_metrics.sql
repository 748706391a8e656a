with source as (
    select
        kind,
        job,
        asset,
        finished_at,
        duration_seconds,
        outcome,
        retries,
        rows,
        sla_met,
        delivery
    from {{ source('ops', 'run_metrics') }}
),

renamed as (
    select
        kind,
        job,
        nullif(asset, '') as asset,
        finished_at,
        duration_seconds,
        outcome,
        retries,
        rows as rows_written,
        sla_met,
        -- A row of a release before there was one counts by its status. A canceled run counts neither way.
        coalesce(
            delivery,
            case outcome when 'success' then 'delivered' when 'failure' then 'failed' when 'lost' then 'failed' end
        ) as delivery
    from source
)

select * from renamed
