with source as (
    select
        timestamp_gps,
        id_veiculo,
        placa,
        servico,
        latitude,
        longitude,
        velocidade,
        sentido,
        trajeto,
        direcao,
        data,
        hora
    from {{ source('silver', 'brt_gps') }}
)

select * from source
