with sales as (
    select
        venda_id,
        produto_id,
        descricao,
        created_at,
        pedido_id,
        cliente_id,
        quantidade,
        total
    from {{ ref('stg_vendas') }}
),

products as (
    select
        produto_id,
        nome,
        categoria
    from {{ ref('stg_produtos') }}
),

per_product as (
    select
        produto_id,
        {{ sales_measures() }}
    from sales
    group by produto_id
),

printed as (
    -- The text on the newest line that has one; two lines of the same instant are told apart by their key.
    select
        produto_id,
        max_by(descricao, (created_at, venda_id)) as descricao
    from sales
    where descricao is not null
    group by produto_id
),

named as (
    select
        per_product.produto_id,
        coalesce(products.nome, printed.descricao, per_product.produto_id) as nome,
        products.categoria,
        per_product.pedidos,
        per_product.clientes,
        per_product.linhas,
        per_product.quantidade,
        per_product.receita
    from per_product
    left join products on per_product.produto_id = products.produto_id
    left join printed on per_product.produto_id = printed.produto_id
)

select * from named
order by produto_id
