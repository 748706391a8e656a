with sales as (
    select
        coalesce(pais, 'Desconhecido') as pais,
        pedido_id,
        cliente_id,
        quantidade,
        total
    from {{ ref('stg_vendas') }}
),

per_country as (
    select
        pais,
        {{ sales_measures() }}
    from sales
    group by pais
)

select * from per_country
order by pais
