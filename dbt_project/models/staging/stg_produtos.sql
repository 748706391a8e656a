with source as (
    select
        id,
        nome,
        categoria,
        updated_at
    from {{ source('silver', 'produtos') }}
),

renamed as (
    select
        id as produto_id,
        nome,
        categoria,
        updated_at
    from source
)

select * from renamed
