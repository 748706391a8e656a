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
        sla_met
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
        sla_met
    from source
)

select * from renamed
