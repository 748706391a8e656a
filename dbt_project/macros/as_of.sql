{#- The rows of a silver table as they were at an instant, from its history: `from {{ as_of('clientes', "timestamptz '2025-06-30'") }}`.

   Args:
       table: a silver table whose record in lakehouse/tables declares `history`.
       instant: SQL of one instant for all rows. Where each row of a join has its own, join the history on `valid_at`. -#}
{%- macro as_of(table, instant) -%}
(
        select *
        from {{ source('silver', table ~ '_history') }}
        where {{ valid_at(instant) }}
    )
{%- endmacro %}

{#- Whether a version was valid at an instant. The end of an interval is not part of it.

   Args:
       instant: SQL of an instant.
       version: alias of the history, where several tables have the columns. -#}
{%- macro valid_at(instant, version='') -%}
{%- set of = version ~ '.' if version else '' -%}
{{ of }}valid_from <= {{ instant }} and ({{ of }}valid_to > {{ instant }} or {{ of }}valid_to is null)
{%- endmacro %}
