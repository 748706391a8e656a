with positions as (
    select
        id_veiculo,
        placa,
        servico,
        sentido,
        trajeto,
        latitude,
        longitude,
        velocidade,
        direcao,
        timestamp_gps,
        0 as publicada
    from {{ ref('stg_brt_gps') }}
    union all
    select
        id_veiculo,
        placa,
        servico,
        sentido,
        trajeto,
        latitude,
        longitude,
        velocidade,
        direcao,
        timestamp_gps,
        1 as publicada
    from {{ published() }}
),

latest as (
    select
        id_veiculo,
        max(timestamp_gps) as timestamp_gps
    from positions
    group by id_veiculo
),

newest as (
    -- Of the same position the one in silver stands: its content may have been corrected. Joined, since putting a day's
    -- positions of every vehicle in order takes four times as long.
    select positions.*
    from positions
    inner join latest
        on positions.id_veiculo = latest.id_veiculo and positions.timestamp_gps = latest.timestamp_gps
    qualify row_number() over (partition by positions.id_veiculo order by positions.publicada) = 1
),

captured as (
    select
        id_veiculo,
        capturado_em
    from {{ ref('stg_brt_capturas') }}
    union all
    select
        id_veiculo,
        visto_em as capturado_em
    from {{ published() }}
),

seen as (
    select
        id_veiculo,
        max(capturado_em) as visto_em
    from captured
    group by id_veiculo
),

now as (
    -- The newest capture: the moment the table speaks of, whenever it is computed.
    select max(capturado_em) as capturado_em
    from captured
),

aged as (
    select
        newest.*,
        seen.visto_em,
        now.capturado_em,
        cast(epoch(now.capturado_em) - epoch(newest.timestamp_gps) as bigint) as idade_segundos
    from newest
    cross join now
    left join seen on newest.id_veiculo = seen.id_veiculo
)

select
    id_veiculo,
    placa,
    servico,
    sentido,
    trajeto,
    latitude,
    longitude,
    velocidade,
    direcao,
    timestamp_gps,
    visto_em,
    capturado_em,
    idade_segundos,
    {{ brt_is_fresh('idade_segundos') }} as recente,
    {{ brt_is_moving('velocidade') }} as em_movimento
from aged
order by id_veiculo
