with sales as (
    select
        created_date,
        pedido_id,
        cliente_id,
        quantidade,
        total
    from {{ ref('stg_vendas') }}
),

per_day as (
    select
        created_date as data,
        {{ sales_measures() }}
    from sales
    group by created_date
)

select * from per_day
order by data
