{# Shops close on Sundays and over Christmas; two weeks without a sale inside the period mean that a sync is missing. #}
{{
    config(
        severity='warn',
        meta={
            'description': 'No two consecutive days of sales are more than 14 days apart.',
            'dagster': {'ref': {'name': 'vendas_diarias'}},
        },
    )
}}

with days as (
    select
        data,
        lag(data) over (order by data) as previous
    from {{ ref('vendas_diarias') }}
),

gaps as (
    select
        previous,
        data,
        data - previous as days
    from days
    where data - previous > 14
)

select * from gaps
