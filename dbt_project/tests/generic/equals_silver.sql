{# The column totals of a mart are exactly those of the silver table it comes from: nothing lost, nothing counted twice.
   It reads the source, not the staging view, so that staging cannot lose a row unseen.

   Args:
       table: silver table.
       measures: {column of the mart: SQL over the silver table that gives the same total}.
       condition: which silver rows the mart is about.
   Fails with one row per measure that differs. #}
{% test equals_silver(model, table, measures, condition='true') %}
with mart as (
    select
        {%- for column in measures %}
        coalesce(sum({{ column }}), 0) as {{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ model }}
),

silver as (
    select
        {%- for column, total in measures.items() %}
        coalesce({{ total }}, 0) as {{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ source('silver', table) }}
    where {{ condition }}
),

compared as (
    {%- for column in measures %}
    select
        '{{ column }}' as measure,
        cast(mart.{{ column }} as varchar) as in_mart,
        cast(silver.{{ column }} as varchar) as in_silver
    from mart
    cross join silver
    where mart.{{ column }} != silver.{{ column }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
)

select * from compared
{% endtest %}
