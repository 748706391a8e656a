with source as (
    select
        job,
        key,
        state,
        count,
        outcome,
        sent_at,
        lag_seconds
    from {{ source('ops', 'deliveries') }}
),

renamed as (
    select
        job,
        key as alert_key,
        state,
        count as occurrences,
        outcome,
        sent_at,
        lag_seconds
    from source
)

select * from renamed
