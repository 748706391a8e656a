with positions as (
    select
        id_veiculo,
        timestamp_gps,
        data,
        hora,
        servico,
        latitude,
        longitude,
        velocidade
    from {{ ref('stg_brt_gps') }}
),

paired as (
    select
        *,
        epoch(timestamp_gps) - epoch(lag(timestamp_gps) over vehicle) as segundos,
        lag(latitude) over vehicle as de_latitude,
        lag(longitude) over vehicle as de_longitude
    from positions
    window vehicle as (partition by id_veiculo order by timestamp_gps)
),

measured as (
    select
        *,
        {{ haversine_km('de_latitude', 'de_longitude', 'latitude', 'longitude') }} as km
    from paired
),

judged as (
    -- A bus that was silent for ten minutes went somewhere, but nobody knows which way; none goes faster than 120 km/h.
    select
        *,
        coalesce(segundos <= 600 and km <= segundos * 120 / 3600, false) as plausivel,
        coalesce(segundos <= 600 and km > segundos * 120 / 3600, false) as salto
    from measured
),

per_hour as (
    select
        data,
        hora,
        servico,
        count(distinct id_veiculo) as veiculos,
        count(*) as posicoes,
        coalesce(sum(km) filter (where plausivel), 0) as km,
        coalesce(sum(segundos) filter (where plausivel), 0) as segundos,
        count(*) filter (where salto) as saltos,
        count(*) filter (where not {{ brt_is_moving('velocidade') }}) as paradas
    from judged
    where servico is not null
    group by data, hora, servico
)

select
    data,
    hora,
    servico,
    veiculos,
    posicoes,
    cast(km as decimal(12, 3)) as km,
    cast(km / nullif(segundos, 0) * 3600 as decimal(6, 2)) as velocidade_media,
    saltos,
    cast(paradas / posicoes as decimal(5, 4)) as parte_parada
from per_hour
order by data, hora, servico
