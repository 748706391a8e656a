with source as (
    select
        id,
        nome,
        valor,
        quantidade,
        total,
        canal,
        updated_at
    from {{ source('silver', 'pedidos') }}
),

renamed as (
    select
        id as pedido_id,
        nome,
        valor,
        quantidade,
        total,
        canal,
        updated_at
    from source
)

select * from renamed
