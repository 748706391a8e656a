with sales as (
    select
        created_date,
        pedido_id,
        cliente_id,
        total
    from {{ ref('stg_vendas') }}
),

customers as (
    select
        cliente_id,
        pais,
        segmento
    from {{ ref('stg_clientes') }}
),

newest as (
    -- Of all sales, anonymous ones included: the day the table speaks of, whenever it is computed.
    select max(created_date) as data
    from sales
),

bought as (
    select
        cliente_id,
        min(created_date) as primeira_compra,
        max(created_date) as ultima_compra,
        cast(count(distinct pedido_id) as bigint) as frequencia,
        cast(sum(total) as decimal(18, 4)) as receita
    from sales
    where cliente_id is not null
    group by cliente_id
),

scored as (
    -- Fifths by rank. Equal values may fall on both sides of a border; cliente_id decides which, so that it is always the same.
    select
        cliente_id,
        primeira_compra,
        ultima_compra,
        frequencia,
        receita,
        cast(ntile(5) over (order by ultima_compra, cliente_id) as integer) as r_score,
        cast(ntile(5) over (order by frequencia, cliente_id) as integer) as f_score,
        cast(ntile(5) over (order by receita, cliente_id) as integer) as m_score
    from bought
),

labelled as (
    select
        scored.cliente_id,
        customers.pais,
        customers.segmento,
        scored.primeira_compra,
        scored.ultima_compra,
        cast(newest.data - scored.ultima_compra as integer) as recencia_dias,
        scored.frequencia,
        scored.receita,
        scored.r_score,
        scored.f_score,
        scored.m_score,
        case
            when r_score >= 4 and f_score >= 4 and m_score >= 4 then 'Campeões'
            when r_score >= 3 and f_score >= 4 then 'Leais'
            when r_score >= 4 and f_score <= 2 then 'Recentes'
            when r_score >= 3 then 'Promissores'
            when f_score >= 3 then 'Em risco'
            when r_score = 2 then 'Hibernando'
            else 'Perdidos'
        end as segmento_rfm
    from scored
    cross join newest
    left join customers on scored.cliente_id = customers.cliente_id
)

select * from labelled
order by cliente_id
