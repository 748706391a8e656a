with source as (
    select
        id,
        pais,
        segmento,
        valid_from,
        valid_to,
        is_current,
        version
    from {{ source('silver', 'clientes_history') }}
),

renamed as (
    select
        id as cliente_id,
        pais,
        segmento,
        valid_from,
        valid_to,
        is_current,
        version
    from source
)

select * from renamed
