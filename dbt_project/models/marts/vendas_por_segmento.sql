with sales as (
    select
        pedido_id,
        cliente_id,
        created_at,
        quantidade,
        total
    from {{ ref('stg_vendas') }}
),

customers as (
    select
        cliente_id,
        segmento,
        valid_from,
        valid_to
    from {{ ref('stg_clientes_history') }}
),

-- a sale before the first version of its customer has no segment
at_the_sale as (
    select
        coalesce(customers.segmento, 'Desconhecido') as segmento,
        sales.pedido_id,
        sales.cliente_id,
        sales.quantidade,
        sales.total
    from sales
    left join customers
        on sales.cliente_id = customers.cliente_id
        and {{ valid_at('sales.created_at', 'customers') }}
),

per_segment as (
    select
        segmento,
        {{ sales_measures() }}
    from at_the_sale
    group by segmento
)

select * from per_segment
order by segmento
