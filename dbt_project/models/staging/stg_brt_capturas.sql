with source as (
    select
        _airbyte_extracted_at,
        codigo,
        datahora,
        linha,
        velocidade
    from {{ source('bronze', 'brt_gps') }}
),

typed as (
    select
        _airbyte_extracted_at as capturado_em,
        codigo as id_veiculo,
        -- Milliseconds since 1970, up to the year 9999.
        case
            when try_cast(datahora as bigint) between 0 and 253402300799999
                then try_cast(datahora as bigint) / 1000.0
        end as segundos_gps,
        nullif(nullif(trim(linha), ''), '0') as servico,
        try_cast(velocidade as double) as velocidade
    from source
)

select
    capturado_em,
    id_veiculo,
    epoch(capturado_em) - segundos_gps as idade_segundos,
    servico,
    velocidade
from typed
