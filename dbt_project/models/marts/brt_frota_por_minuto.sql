with captured as (
    select
        capturado_em,
        id_veiculo,
        idade_segundos,
        servico,
        velocidade
    from {{ ref('stg_brt_capturas') }}
),

judged as (
    select
        date_trunc('minute', capturado_em) as minuto,
        capturado_em,
        id_veiculo,
        servico,
        coalesce({{ brt_is_fresh('idade_segundos') }}, false) as recente,
        coalesce(idade_segundos > 300, false) as atrasado,
        {{ brt_is_moving('velocidade') }} as em_movimento
    from captured
),

per_minute as (
    select
        cast(minuto at time zone 'America/Sao_Paulo' as date) as data,
        minuto,
        servico,
        count(distinct capturado_em) as capturas,
        count(*) as registros,
        count(distinct id_veiculo) as veiculos,
        count(*) filter (where recente) as recentes,
        count(*) filter (where atrasado) as atrasados,
        count(*) filter (where not recente and not atrasado) as sem_instante,
        count(*) filter (where recente and em_movimento) as em_movimento
    from judged
    group by minuto, servico
)

select * from per_minute
order by minuto, servico
