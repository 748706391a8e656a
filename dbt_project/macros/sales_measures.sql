{# The measures of every mart of sales, so that they mean the same in all of them. Distinct counts do not add up: each mart
   counts from the order lines, never from another mart. DuckDB sums bigint to hugeint and decimal(18,4) to decimal(38,4),
   neither of which the published table has: hence the casts, which fail rather than lose a digit. #}
{% macro sales_measures() -%}
        cast(count(distinct pedido_id) as bigint) as pedidos,
        cast(count(distinct cliente_id) as bigint) as clientes,
        cast(count(*) as bigint) as linhas,
        cast(sum(quantidade) as bigint) as quantidade,
        cast(sum(total) as decimal(18, 4)) as receita
{%- endmacro %}
