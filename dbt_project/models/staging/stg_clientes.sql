with source as (
    select
        id,
        pais,
        segmento,
        created_at,
        updated_at
    from {{ source('silver', 'clientes') }}
),

renamed as (
    select
        id as cliente_id,
        pais,
        segmento,
        created_at,
        updated_at
    from source
)

select * from renamed
