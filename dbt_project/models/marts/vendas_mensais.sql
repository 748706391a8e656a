with sales as (
    select
        strftime(created_date, '%Y-%m') as mes,
        pedido_id,
        cliente_id,
        quantidade,
        total
    from {{ ref('stg_vendas') }}
),

per_month as (
    select
        mes,
        {{ sales_measures() }}
    from sales
    group by mes
)

select * from per_month
order by mes
