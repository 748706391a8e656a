with orders as (
    select
        canal,
        pedido_id,
        quantidade,
        total,
        updated_at
    from {{ ref('stg_pedidos') }}
),

per_channel as (
    select
        canal,
        cast(count(pedido_id) as bigint) as pedidos,
        cast(sum(quantidade) as bigint) as quantidade,
        cast(sum(total) as decimal(18, 2)) as receita,
        cast(avg(total) as decimal(18, 2)) as ticket_medio,
        min(updated_at) as primeiro_em,
        max(updated_at) as ultimo_em
    from orders
    group by canal
)

select * from per_channel
order by canal
