with source as (
    select
        id,
        pedido_id,
        produto_id,
        descricao,
        quantidade,
        valor_unitario,
        cliente_id,
        pais,
        status,
        created_at,
        updated_at,
        created_date,
        total
    from {{ source('silver', 'vendas') }}
),

renamed as (
    select
        id as venda_id,
        pedido_id,
        produto_id,
        descricao,
        quantidade,
        valor_unitario,
        cliente_id,
        pais,
        status,
        created_at,
        updated_at,
        created_date,
        total
    from source
)

select * from renamed
